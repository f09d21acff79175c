// The weight update.  Words of trains lie as [tile][sample][line], each tile padded to the largest; see
// rpucluster/kernels/reference.py for the specification and base.py for the tile table.

#define SLOTS 0x7FFFFFFFu
// Keys of a tile's streams, two words each: x, d, noise, replay, device, relaxation, program.
#define KEYS 14
#define D_KEY 2
#define NOISE_KEY 4
#define REPLAY_KEY 6
#define DEVICE_KEY 8
#define RELAXATION_KEY 10
// Places in the floats of a packed rule; see base.py.
#define STD 1
#define AHEAD 2
#define BEHIND 3
#define SPREAD 16
#define CONSTANTS 48

// One thread per cell and block of lanes, from cell `first` of the shard on.
extern "C" __global__ void update_lanes(
    const i64* table, const u32* keys, int tiles, int blocks, i64 first, i64 count, short* lanes
) {
    for (i64 n = (i64)blockIdx.x * blockDim.x + threadIdx.x; n < count * blocks; n += (i64)gridDim.x * blockDim.x) {
        i64 cell = first + n / blocks;
        u32 block = (u32)(n % blocks);
        int t = 0;
        for (int step = 1 << 30; step > 0; step >>= 1)  // the last tile that starts at or before the cell
            if (t + step < tiles && table[5 * (i64)(t + step)] <= cell) t += step;
        Block b = philox((u32)(cell - table[5 * (i64)t]), 0, block, keys + KEYS * t + DEVICE_KEY);
        for (int i = 0; i < 4; ++i) lanes[4 * n + i] = lane_of(b, block, i);
    }
}

// Tolerances of a constant-step cell, from its stored lanes or, without any, from lanes made anew.
struct Cell { float up, down, low, high; };

__device__ __forceinline__ Cell cell_at(
    const short* lanes, int stored, i64 place, u32 cell, const u32* key, const float* f
) {
    float z[4];
    if (stored) {
        for (int i = 0; i < 4; ++i) z[i] = (float)lanes[4 * place + i] * LANE_UNIT;
    } else {
        Block b = philox(cell, 0, 0, key);
        for (int i = 0; i < 4; ++i) z[i] = (float)lane_of(b, 0, i) * LANE_UNIT;
    }
    const float* c = f + CONSTANTS;
    float gain = 1.0f + c[1] * z[0], r = c[2] * z[1];
    Cell found = {
        fabsf((gain + c[3]) + r) * c[0], fabsf((gain + c[4]) - r) * c[0],
        -fabsf(c[7] * (1.0f + c[8] * z[3])), fabsf(c[5] * (1.0f + c[6] * z[2]))};
    return found;
}

// One warp per tile and sample: slots to use and the two gains; status becomes 1 if an input is not finite.
extern "C" __global__ void update_gains(
    const i64* table, const float* x, const float* d, int samples, int shard_cols, int shard_rows,
    float lr, float dw_min, int bit_length, int management, int dynamic,
    int* slots, float* gain_x, float* gain_d, int* status
) {
    int at = blockIdx.x, b = at % samples;
    Tile tile = tile_at(table, at / samples);
    int x_bits = peak_bits(x + (i64)b * shard_cols + tile.col0, tile.cols);
    int d_bits = peak_bits(d + (i64)b * shard_rows + tile.row0, tile.rows);
    if (threadIdx.x != 0) return;
    if (x_bits >= INFINITY_BITS || d_bits >= INFINITY_BITS) {
        *status = 1;
        return;
    }
    float x_peak = __int_as_float(x_bits), d_peak = __int_as_float(d_bits);
    float wanted = ((lr * x_peak) * d_peak) / dw_min;
    bool quiet = x_peak == 0.0f || d_peak == 0.0f || lr == 0.0f;
    int bits = bit_length;
    if (dynamic && wanted < (float)bit_length) bits = quiet ? 0 : max(1, (int)ceilf(wanted));
    float for_x = 0.0f, for_d = 0.0f;
    if (!quiet) {
        for_x = for_d = sqrtf(lr / (dw_min * (float)bits));
        if (management) {
            float peak = wanted > (float)bit_length ? d_peak * ((float)bit_length / wanted) : d_peak;
            for_d = for_d * sqrtf(x_peak / peak);
            for_x = for_x * sqrtf(peak / x_peak);
        }
    }
    slots[at] = bits;
    gain_x[at] = for_x;
    gain_d[at] = for_x == 0.0f ? 0.0f : for_d;
}

// A train that is not drawn: it fires in its first k slots, or in k that are spread evenly.
__device__ __forceinline__ u32 spread_train(int k, int bits, int evenly) {
    u32 word = 0;
    for (int slot = 0, before = 0; slot < bits; ++slot) {
        int now = (2 * (slot + 1) * k + bits) / (2 * bits);
        word |= (u32)(evenly ? now > before : slot < k) << slot;
        before = now;
    }
    return word;
}

// One thread per line: its train, and the sum of the 32-bit probabilities of the lines.
extern "C" __global__ void update_trains(
    const i64* table, const u32* keys, const float* values, int samples, int shard_lines, int is_d, int padded,
    const int* slots, const float* gains, i64 first_sample, u32* words, u64* totals, const int* status, int spread
) {
    int at = blockIdx.x, t = at / samples, b = at % samples;
    int line = blockIdx.y * blockDim.x + threadIdx.x;
    Tile tile = tile_at(table, t);
    if (*status || line >= (is_d ? tile.rows : tile.cols)) return;
    float value = values[(i64)b * shard_lines + (is_d ? tile.row0 : tile.col0) + line];
    float p = value == 0.0f ? 0.0f : fminf(fabsf(value) * gains[at], 1.0f);
    u32 word = 0;
    int bits = slots[at];
    if (spread && p > 0.0f) p = rintf(p * (float)bits) / (float)bits;
    if (p > 0.0f) {
        u64 limit = (u64)ceil((double)p * 4294967296.0);
        if (spread) word = spread_train((int)rintf(p * (float)bits), bits, is_d);
        for (int block = 0; !spread && 4 * block < bits; ++block) {
            Block u = philox(8 * (u32)line + block, first_sample + b, 0, keys + KEYS * t + (is_d ? D_KEY : 0));
            for (int lane = 0; lane < 4 && 4 * block + lane < bits; ++lane)
                word |= (u32)(u.w[lane] < limit) << (4 * block + lane);
        }
        if (value < 0.0f) word |= ~SLOTS;
        atomicAdd(totals + at, limit);
    }
    words[(i64)at * padded + line] = word;
}

// n pulses one by one, the weight clipped after each.
__device__ float replay(
    float w, int n, bool lowers, float step, float low, float high, float std, const u32* key, u64 sample, u32 cell
) {
    for (int pulse = 0; pulse < n; ++pulse) {
        float z = std > 0.0f ? normal(32 * cell + pulse, sample, 0, key) : 0.0f;
        float amount = step * (1.0f + std * z);
        w = lowers ? w - amount : w + amount;
        w = fminf(fmaxf(w, low), high);
    }
    return w;
}

// n pulses as one draw of noise, or one by one where a clip between two of them is possible.
__device__ __forceinline__ float pulse(
    float old, int n, bool lowers, Cell of, float z, const float* f, const u32* key, u64 sample, u32 cell
) {
    float step = lowers ? of.down : of.up;
    float amount = step * ((float)n + f[SPREAD + n] * z);
    if (n > 1) {
        float whole = (float)n * step;
        float up = whole * f[lowers ? BEHIND : AHEAD], down = whole * f[lowers ? AHEAD : BEHIND];
        if (old + up > of.high || old - down < of.low)
            return replay(old, n, lowers, step, of.low, of.high, f[STD], key + REPLAY_KEY, sample, cell);
    }
    return fminf(fmaxf(lowers ? old - amount : old + amount, of.low), of.high);
}

// One warp per row, samples in order; a lane always has the same columns, so the weights need no exchange.
extern "C" __global__ void update_per_sample(
    float* weights, const short* lanes, int stored, const i64* table, const u32* keys, const float* f,
    const u32* x_words, const u32* d_words, int samples, int tile_rows, int tile_cols, i64 first_sample,
    int raise_only, u64* coincidences, const int* status
) {
    int t = blockIdx.x, lane = threadIdx.x;
    i64 row = (i64)blockIdx.y * blockDim.y + threadIdx.y;
    Tile tile = tile_at(table, t);
    if (*status || row >= tile.rows) return;
    const u32* key = keys + KEYS * t;
    float std = f[STD];
    u64 found = 0;
    for (int b = 0; b < samples; ++b) {
        i64 at = (i64)t * samples + b;
        u32 d_word = d_words[at * tile_rows + row];
        if ((d_word & SLOTS) == 0) continue;
        u32 hits = 0;
        for (i64 start = 0; start < tile.cols; start += 32) {
            i64 j = start + lane;
            u32 x_word = j < tile.cols ? x_words[at * tile_cols + j] : 0;
            bool lowers = (d_word ^ x_word) <= SLOTS;
            int n = lowers && raise_only ? 0 : __popc(d_word & x_word & SLOTS);
            u32 vote = __ballot_sync(WARP, n > 0);
            if (n > 0) {
                u32 ordinal = hits + __popc(vote & ((1u << lane) - 1));
                i64 cell = row * tile.cols + j, place = tile.offset + cell;
                Cell of = cell_at(lanes, stored, place, (u32)cell, key + DEVICE_KEY, f);
                float z = std > 0.0f ? normal(ordinal, first_sample + b, (u32)row, key + NOISE_KEY) : 0.0f;
                weights[place] = pulse(weights[place], n, lowers, of, z, f, key, first_sample + b, (u32)cell);
                found += n;
            }
            hits += __popc(vote);
        }
    }
    if (found) atomicAdd(coincidences, found);
}

// All pulses of a batch as one draw of noise, or one by one where a clip between two of them is possible; xs and ds
// are the trains of the cell's column and row, one sample after the other.
__device__ __forceinline__ float pulse_batch(
    float old, int ups, int downs, Cell of, float z, const float* f, const u32* key, u64 first_sample, u32 cell,
    const u32* xs, int x_stride, const u32* ds, int d_stride, int samples, int raise_only
) {
    float up = (float)ups * of.up, down = (float)downs * of.down;
    bool near = old + (up * f[AHEAD] + down * f[BEHIND]) > of.high || old - (down * f[AHEAD] + up * f[BEHIND]) < of.low;
    if (ups + downs == 1 || !near) {
        float noise = f[STD] * sqrtf(up * of.up + down * of.down);
        return fminf(fmaxf(old + ((up - down) + noise * z), of.low), of.high);
    }
    for (int b = 0; b < samples; ++b) {
        u32 x_word = xs[(i64)b * x_stride], d_word = ds[(i64)b * d_stride];
        bool lowers = (d_word ^ x_word) <= SLOTS;
        int n = lowers && raise_only ? 0 : __popc(d_word & x_word & SLOTS);
        old = replay(
            old, n, lowers, lowers ? of.down : of.up, of.low, of.high, f[STD], key + REPLAY_KEY, first_sample + b, cell);
    }
    return old;
}

// One warp per row, as above, but first all samples of a cell are counted.
extern "C" __global__ void update_per_batch(
    float* weights, const short* lanes, int stored, const i64* table, const u32* keys, const float* f,
    const u32* x_words, const u32* d_words, int samples, int tile_rows, int tile_cols, i64 first_sample,
    int raise_only, u64* coincidences, const int* status
) {
    int t = blockIdx.x, lane = threadIdx.x;
    i64 row = (i64)blockIdx.y * blockDim.y + threadIdx.y;
    Tile tile = tile_at(table, t);
    if (*status || row >= tile.rows) return;
    const u32* key = keys + KEYS * t;
    const u32* ds = d_words + (i64)t * samples * tile_rows + row;
    u64 found = 0;
    u32 hits = 0;
    for (i64 start = 0; start < tile.cols; start += 32) {
        i64 j = start + lane;
        const u32* xs = x_words + (i64)t * samples * tile_cols + j;
        int ups = 0, downs = 0;
        for (int b = 0; b < samples; ++b) {
            u32 d_word = ds[(i64)b * tile_rows];
            if ((d_word & SLOTS) == 0) continue;
            u32 x_word = j < tile.cols ? xs[(i64)b * tile_cols] : 0;
            int n = __popc(d_word & x_word & SLOTS);
            if ((d_word ^ x_word) <= SLOTS) downs += raise_only ? 0 : n; else ups += n;
        }
        u32 vote = __ballot_sync(WARP, ups + downs > 0);
        if (ups + downs > 0) {
            u32 ordinal = hits + __popc(vote & ((1u << lane) - 1));
            i64 cell = row * tile.cols + j, place = tile.offset + cell;
            Cell of = cell_at(lanes, stored, place, (u32)cell, key + DEVICE_KEY, f);
            float z = f[STD] > 0.0f ? normal(ordinal, first_sample, (u32)row, key + NOISE_KEY) : 0.0f;
            weights[place] = pulse_batch(
                weights[place], ups, downs, of, z, f, key, first_sample, (u32)cell, xs, tile_cols, ds, tile_rows,
                samples, raise_only);
            found += ups + downs;
        }
        hits += __popc(vote);
    }
    if (found) atomicAdd(coincidences, found);
}

// One thread per cell, or several cells if there are more than a grid can have.
#define FOR_CELLS(tile) \
    for (i64 cell = (i64)blockIdx.y * blockDim.x + threadIdx.x; cell < tile.rows * tile.cols; \
         cell += (i64)gridDim.y * blockDim.x)

// Plain gradient descent, one sample after the other.
extern "C" __global__ void update_exact(
    float* weights, const i64* table, const float* x, const float* d, int samples, int shard_cols, int shard_rows,
    float lr
) {
    Tile tile = tile_at(table, blockIdx.x);
    FOR_CELLS(tile) {
        i64 row = tile.row0 + cell / tile.cols, col = tile.col0 + cell % tile.cols;
        float w = weights[tile.offset + cell];
        for (int b = 0; b < samples; ++b) {
            float scaled = lr * d[(i64)b * shard_rows + row];
            w = w - scaled * x[(i64)b * shard_cols + col];
        }
        weights[tile.offset + cell] = w;
    }
}
