// Transfers between planes and flushes of a digital matrix; see rpucluster/kernels/reference_transfer.py.

struct Transfer {
    int columns, buffered, forget, chop_every, chop_random, dynamic, slots;
    float threshold, keep, memory, read_noise, output_step, output_limit, pulse_unit;
};

__device__ __forceinline__ Transfer transfer_rule(const i64* ints, const float* floats, int slots) {
    Transfer rule = {
        (int)ints[COLUMNS], (int)ints[BUFFERED], (int)ints[FORGET], (int)ints[CHOP_EVERY], (int)ints[CHOP_RANDOM],
        (int)ints[DYNAMIC_REFERENCE], slots, floats[THRESHOLD], floats[MOMENTUM], floats[MEMORY], floats[READ_NOISE],
        floats[OUTPUT_STEP], floats[OUTPUT_LIMIT], floats[PULSE_UNIT]};
    return rule;
}

__device__ __forceinline__ bool switches(int age, const u32* key, u64 sample, int number, Transfer rule) {
    if (rule.chop_every == 0) return false;
    if (!rule.chop_random) return age + 1 >= rule.chop_every;
    return philox((u32)number >> 2, sample, 0, key).w[number & 3] < 4294967296ull / (u64)rule.chop_every;
}

__device__ __forceinline__ float whole_pulses(float held, float threshold, float slots) {
    return fminf(fmaxf(truncf(held / threshold), -slots), slots);
}

// Pulses of the stochastic train of one line, negative where they lower the weight.
__device__ __forceinline__ int fired(float wanted, float unit, int slots, u32 line, u64 sample, const u32* key) {
    float p = fminf(fabsf(wanted) * (1.0f / unit), 1.0f);
    if (!(p > 0.0f)) return 0;
    u64 limit = (u64)ceil((double)p * 4294967296.0);
    int n = 0;
    for (int block = 0; 4 * block < slots; ++block) {
        Block u = philox(8 * line + block, sample, 0, key);
        for (int lane = 0; lane < 4 && 4 * block + lane < slots; ++lane) n += u.w[lane] < limit;
    }
    return wanted < 0.0f ? -n : n;
}

// n pulses on a cell of any device, of which the first has the normal z.
__device__ void write(
    float* weights, float* hidden, const short* lanes, int stored, i64 place, int n, bool lowers, float z,
    const float* f, const u32* key, u64 sample, u32 cell
) {
    if (f[IS_GENERAL] != 0.0f) {
        Wide of = wide_cell(lanes_at(lanes, stored, place, cell, key, f), f);
        fire(weights, hidden, place, n, 0, lowers, of, z, f, key, sample, cell);
    } else {
        Cell of = cell_at(lanes, stored, place, cell, key + DEVICE_KEY, f);
        weights[place] = pulse(weights[place], n, lowers, of, z, f, key, sample, cell);
    }
}

// One thread per row of a tile; the pulses wait in counts [tile][row][column] until all columns are read, since noise
// is numbered along the row.
extern "C" __global__ void transfer_columns(
    const float* fast, float* slow, float* hidden, const short* lanes, int stored, const i64* table, const u32* keys,
    const u32* column_keys, const float* f, const i64* ints, const float* floats, int slots, const float* gains,
    float* buffer, float* mean, float* reference, const float* choppers, const int* ages, i64 sample, i64 start,
    int tile_rows, int* counts, u64* pulses
) {
    int t = blockIdx.x;
    i64 row = (i64)blockIdx.y * blockDim.x + threadIdx.x;
    Tile tile = tile_at(table, t);
    if (row >= tile.rows) return;
    Transfer rule = transfer_rule(ints, floats, slots);
    const u32* key = keys + KEYS * t;
    const u32* column_key = column_keys + 4 * t;
    int columns = tile.cols < rule.columns ? (int)tile.cols : rule.columns;
    i64 first = start % tile.cols;
    int* found = counts + ((i64)t * tile_rows + row) * rule.columns;
    for (int number = 0; number < columns; ++number) {
        i64 j = (first + number) % tile.cols, place = tile.offset + row * tile.cols + j;
        float y = fast[place];
        if (rule.read_noise > 0.0f)
            y = y + rule.read_noise * normal((u32)row, sample, number, column_key + 2 * COLUMN_READ_KEY);
        if (rule.output_step > 0.0f) y = rintf(y / rule.output_step);
        y = fminf(fmaxf(y, -rule.output_limit), rule.output_limit);
        if (rule.output_step > 0.0f) y = y * rule.output_step;
        float change = y;
        if (rule.dynamic) {
            int age = ages[tile.col0 + j];
            change = y - reference[place];
            float now = age == 0 ? y : mean[place] + rule.memory * (y - mean[place]);
            mean[place] = now;
            if (switches(age, column_key + 2 * CHOPPER_KEY, sample, number, rule)) reference[place] = now;
        }
        float wanted = (gains[t] * choppers[tile.col0 + j]) * change;
        if (rule.buffered) {
            float held = buffer[place] + wanted, n = whole_pulses(held, rule.threshold, (float)slots);
            float left = rule.forget ? rule.keep * held : held - (n * rule.threshold) * (1.0f - rule.keep);
            buffer[place] = n != 0.0f ? left : held;
            found[number] = (int)n;
        } else {
            u32 line = (u32)(number * tile.rows + row);
            found[number] = fired(wanted, rule.pulse_unit, slots, line, sample, key + D_KEY);
        }
    }
    i64 wrapped = first + columns > tile.cols ? tile.cols - first : 0;
    u32 hits = 0;
    u64 total = 0;
    for (int k = 0; k < columns; ++k) {
        int number = (int)((wrapped + k) % columns), n = found[number];
        if (n == 0) continue;
        i64 cell = row * tile.cols + (first + number) % tile.cols;
        bool lowers = n < 0;
        n = lowers ? -n : n;
        float z = f[STD] > 0.0f ? normal(hits, sample, (u32)row, key + NOISE_KEY) : 0.0f;
        write(slow, hidden, lanes, stored, tile.offset + cell, n, lowers, z, f, key, sample, (u32)cell);
        ++hits;
        total += n;
    }
    if (total) atomicAdd(pulses, total);
}

// One thread per tile of the first row of tiles: the signs of its columns change for all tiles below.
extern "C" __global__ void transfer_switch(
    const i64* table, const u32* column_keys, const i64* ints, const float* floats, i64 sample, i64 start,
    float* choppers, int* ages
) {
    int t = blockIdx.x;
    Tile tile = tile_at(table, t);
    if (tile.row0 != 0 || threadIdx.x != 0) return;
    Transfer rule = transfer_rule(ints, floats, 0);
    for (int number = 0; number < rule.columns && number < tile.cols; ++number) {
        i64 j = tile.col0 + (start + number) % tile.cols;
        bool change = switches(ages[j], column_keys + 4 * t + 2 * CHOPPER_KEY, sample, number, rule);
        if (change) choppers[j] = -choppers[j];
        ages[j] = change ? 0 : ages[j] + 1;
    }
}

// One warp per row: whole pulses out of the digital matrix.
extern "C" __global__ void flush_rows(
    float* weights, float* hidden, const short* lanes, int stored, const i64* table, const u32* keys, const float* f,
    float* held,
    float threshold, int slots, i64 sample, u64* pulses
) {
    int t = blockIdx.x, lane = threadIdx.x;
    i64 row = (i64)blockIdx.y * blockDim.y + threadIdx.y;
    Tile tile = tile_at(table, t);
    if (row >= tile.rows) return;
    const u32* key = keys + KEYS * t;
    u32 hits = 0;
    u64 total = 0;
    for (i64 begin = 0; begin < tile.cols; begin += 32) {
        i64 j = begin + lane, cell = row * tile.cols + j, place = tile.offset + cell;
        float whole = j < tile.cols ? whole_pulses(held[place], threshold, (float)slots) : 0.0f;
        u32 vote = __ballot_sync(WARP, whole != 0.0f);
        if (whole != 0.0f) {
            held[place] = held[place] - whole * threshold;
            int n = (int)fabsf(whole);
            u32 ordinal = hits + __popc(vote & ((1u << lane) - 1));
            float z = f[STD] > 0.0f ? normal(ordinal, sample, (u32)row, key + NOISE_KEY) : 0.0f;
            write(weights, hidden, lanes, stored, place, n, whole < 0.0f, z, f, key, sample, (u32)cell);
            total += n;
        }
        hits += __popc(vote);
    }
    if (total) atomicAdd(pulses, total);
}
