// The weight update.  Words of trains lie as [tile][sample][line], each tile padded to the largest; see
// rpucluster/kernels/reference.py for the specification and base.py for the tile table.

#define SLOTS 0x7FFFFFFFu

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

// One thread per line: its train, and the sum of the 32-bit probabilities of the lines.
extern "C" __global__ void update_trains(
    const i64* table, const u32* keys, const float* values, int samples, int shard_lines, int is_d, int padded,
    const int* slots, const float* gains, i64 first_sample, u32* words, u64* totals, const int* status
) {
    int at = blockIdx.x, t = at / samples, b = at % samples;
    int line = blockIdx.y * blockDim.x + threadIdx.x;
    Tile tile = tile_at(table, t);
    if (*status || line >= (is_d ? tile.rows : tile.cols)) return;
    float value = values[(i64)b * shard_lines + (is_d ? tile.row0 : tile.col0) + line];
    float p = value == 0.0f ? 0.0f : fminf(fabsf(value) * gains[at], 1.0f);
    u32 word = 0;
    if (p > 0.0f) {
        u64 limit = (u64)ceil((double)p * 4294967296.0);
        int bits = slots[at];
        for (int block = 0; 4 * block < bits; ++block) {
            Block u = philox(8 * (u32)line + block, first_sample + b, 0, keys + 8 * t + 2 * is_d);
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

// One warp per row, samples in order; a lane always has the same columns, so the weights need no exchange.
extern "C" __global__ void update_per_sample(
    float* weights, const float* step_up, const float* step_down, const float* lower, const float* upper,
    const i64* table, const u32* keys, const u32* x_words, const u32* d_words, int samples, int tile_rows,
    int tile_cols, i64 first_sample, float std, float ahead, float behind, u64* coincidences, const int* status
) {
    int t = blockIdx.x, lane = threadIdx.x;
    i64 row = (i64)blockIdx.y * blockDim.y + threadIdx.y;
    Tile tile = tile_at(table, t);
    if (*status || row >= tile.rows) return;
    const u32* noise_key = keys + 8 * t + 4;
    const u32* replay_key = keys + 8 * t + 6;
    u64 found = 0;
    for (int b = 0; b < samples; ++b) {
        i64 at = (i64)t * samples + b;
        u32 d_word = d_words[at * tile_rows + row];
        if ((d_word & SLOTS) == 0) continue;
        u32 hits = 0;
        for (i64 start = 0; start < tile.cols; start += 32) {
            i64 j = start + lane;
            u32 x_word = j < tile.cols ? x_words[at * tile_cols + j] : 0;
            int n = __popc(d_word & x_word & SLOTS);
            u32 vote = __ballot_sync(WARP, n > 0);
            if (n > 0) {
                u32 ordinal = hits + __popc(vote & ((1u << lane) - 1));
                i64 cell = row * tile.cols + j, place = tile.offset + cell;
                bool lowers = (d_word ^ x_word) <= SLOTS;
                float old = weights[place], low = lower[place], high = upper[place];
                float step = lowers ? step_down[place] : step_up[place];
                float z = std > 0.0f ? normal(ordinal, first_sample + b, (u32)row, noise_key) : 0.0f;
                float amount = step * ((float)n + (std * sqrtf((float)n)) * z);
                float next = fminf(fmaxf(lowers ? old - amount : old + amount, low), high);
                if (n > 1) {
                    float whole = (float)n * step;
                    float up = whole * (lowers ? behind : ahead), down = whole * (lowers ? ahead : behind);
                    if (old + up > high || old - down < low)
                        next = replay(
                            old, n, lowers, step, low, high, std, replay_key, first_sample + b, (u32)cell);
                }
                weights[place] = next;
                found += n;
            }
            hits += __popc(vote);
        }
    }
    if (found) atomicAdd(coincidences, found);
}

// One cell: counts over the batch, one draw of noise.
__device__ __forceinline__ void batch_cell(
    float* w, float for_up, float for_down, float low, float high, const u32* xs, const u32* ds, int samples,
    int tile_rows, int tile_cols, i64 first_sample, u32 cell, const u32* keys, float std, float ahead, float behind,
    u64* coincidences
) {
    int ups = 0, downs = 0;
    for (int b = 0; b < samples; ++b) {
        u32 x_word = xs[(i64)b * tile_cols], d_word = ds[(i64)b * tile_rows];
        int n = __popc(d_word & x_word & SLOTS);
        if ((d_word ^ x_word) <= SLOTS) downs += n; else ups += n;
    }
    if (ups + downs == 0) return;
    atomicAdd(coincidences, (u64)(ups + downs));
    float up = (float)ups * for_up, down = (float)downs * for_down, old = *w;
    if (ups + downs > 1
            && (old + (up * ahead + down * behind) > high || old - (down * ahead + up * behind) < low)) {
        for (int b = 0; b < samples; ++b) {
            u32 x_word = xs[(i64)b * tile_cols], d_word = ds[(i64)b * tile_rows];
            bool lowers = (d_word ^ x_word) <= SLOTS;
            old = replay(
                old, __popc(d_word & x_word & SLOTS), lowers, lowers ? for_down : for_up, low, high, std, keys + 6,
                first_sample + b, cell);
        }
        *w = old;
        return;
    }
    float z = std > 0.0f ? normal(cell, first_sample, 0xFFFFFFFFu, keys + 4) : 0.0f;
    float noise = std * sqrtf(up * for_up + down * for_down);
    *w = fminf(fmaxf(old + ((up - down) + noise * z), low), high);
}

// One thread per cell, or several cells if there are more than a grid can have.
#define FOR_CELLS(tile) \
    for (i64 cell = (i64)blockIdx.y * blockDim.x + threadIdx.x; cell < tile.rows * tile.cols; \
         cell += (i64)gridDim.y * blockDim.x)

extern "C" __global__ void update_per_batch(
    float* weights, const float* step_up, const float* step_down, const float* lower, const float* upper,
    const i64* table, const u32* keys, const u32* x_words, const u32* d_words, int samples, int tile_rows,
    int tile_cols, i64 first_sample, float std, float ahead, float behind, u64* coincidences, const int* status
) {
    int t = blockIdx.x;
    Tile tile = tile_at(table, t);
    if (*status) return;
    FOR_CELLS(tile) {
        i64 place = tile.offset + cell;
        batch_cell(
            weights + place, step_up[place], step_down[place], lower[place], upper[place],
            x_words + (i64)t * samples * tile_cols + cell % tile.cols,
            d_words + (i64)t * samples * tile_rows + cell / tile.cols, samples, tile_rows, tile_cols, first_sample,
            (u32)cell, keys + 8 * t, std, ahead, behind, coincidences);
    }
}

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
