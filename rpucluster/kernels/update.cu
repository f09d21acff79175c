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

// One block per tile and sample: slots to use, the two gains, and sums of probabilities set to 0.
extern "C" __global__ void __launch_bounds__(WIDE) update_gains(
    const i64* table, const float* x, const float* d, int samples, int shard_cols, int shard_rows,
    const float* rate, float dw_min, int bit_length, int management, int dynamic,
    int* slots, float* gain_x, float* gain_d, u64* totals, int* status, int mark
) {
    int at = blockIdx.x, b = at % samples;
    Tile tile = tile_at(table, at / samples);
    int x_bits = peak_bits(x + (i64)b * shard_cols + tile.col0, tile.cols);
    int d_bits = peak_bits(d + (i64)b * shard_rows + tile.row0, tile.rows);
    if (threadIdx.x != 0) return;
    totals[at] = totals[gridDim.x + at] = 0;
    if (x_bits >= INFINITY_BITS || d_bits >= INFINITY_BITS) {
        fail(status, mark | NOT_FINITE);
        return;
    }
    float lr = *rate, x_peak = __int_as_float(x_bits), d_peak = __int_as_float(d_bits);
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

// One thread per line, those of x (columns) first: its train, and the sum of the 32-bit probabilities of each side.
extern "C" __global__ void update_trains(
    const i64* table, const u32* keys, const float* x, const float* d, int samples, int shard_cols, int shard_rows,
    int tile_cols, int tile_rows, const int* slots, const float* gain_x, const float* gain_d, const i64* clock,
    i64 first_sample, u32* x_words, u32* d_words, u64* totals, const int* status, int spread
) {
    int at = blockIdx.x, t = at / samples, b = at % samples;
    int line = blockIdx.y * blockDim.x + threadIdx.x;
    bool is_d = line >= tile_cols;
    Tile tile = tile_at(table, t);
    if (is_d) line -= tile_cols;
    if (*status || line >= (is_d ? tile.rows : tile.cols)) return;
    float value = is_d ? d[(i64)b * shard_rows + tile.row0 + line] : x[(i64)b * shard_cols + tile.col0 + line];
    float p = value == 0.0f ? 0.0f : fminf(fabsf(value) * (is_d ? gain_d[at] : gain_x[at]), 1.0f);
    u32 word = 0;
    int bits = slots[at];
    if (spread && p > 0.0f) p = rintf(p * (float)bits) / (float)bits;
    if (p > 0.0f) {
        u64 limit = (u64)ceil((double)p * 4294967296.0), sample = clock[CLOCK_SAMPLE] + first_sample + b;
        if (spread) word = spread_train((int)rintf(p * (float)bits), bits, is_d);
        for (int block = 0; !spread && 4 * block < bits; ++block) {
            Block u = philox(8 * (u32)line + block, sample, 0, keys + KEYS * t + (is_d ? D_KEY : 0));
            for (int lane = 0; lane < 4 && 4 * block + lane < bits; ++lane)
                word |= (u32)(u.w[lane] < limit) << (4 * block + lane);
        }
        if (value < 0.0f) word |= ~SLOTS;
        atomicAdd(totals + (is_d ? gridDim.x : 0) + at, limit);
    }
    if (is_d) d_words[(i64)at * tile_rows + line] = word;
    else x_words[(i64)at * tile_cols + line] = word;
}

// One warp: slots used, and coincidences expected, sum of slots * p * q over cells.
extern "C" __global__ void update_count(
    int each, const int* slots, const u64* totals, u64* used, double* expected, const int* status
) {
    if (*status) return;
    u64 count = 0;
    double sum = 0.0;
    for (int at = threadIdx.x; at < each; at += 32) {
        count += slots[at];
        sum += (double)slots[at] * ((double)totals[at] * 2.3283064365386963e-10) *
               ((double)totals[each + at] * 2.3283064365386963e-10);
    }
    for (int distance = 16; distance > 0; distance >>= 1) {
        count += __shfl_xor_sync(WARP, count, distance);
        sum += __shfl_xor_sync(WARP, sum, distance);
    }
    if (threadIdx.x != 0) return;
    *used += count;
    *expected += sum;
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

// A number of each thread of a warp added to a count.
__device__ __forceinline__ void add_up(u64 found, u64* count) {
    for (int distance = 16; distance > 0; distance >>= 1) found += __shfl_xor_sync(WARP, found, distance);
    if (threadIdx.x % 32 == 0 && found) atomicAdd(count, found);
}

// One block per row, a thread per column and WIDE columns at a time.  A thread finds the hits of its cell in up to
// TOGETHER samples, the block numbers them along the row and makes their normals side by side, whoever's they are, and
// then each thread changes its cell, hit after hit: so weight and tolerances are moved once for these samples.
#define TOGETHER 32
extern "C" __global__ void __launch_bounds__(WIDE) update_per_sample(
    float* weights, const short* lanes, int stored, const i64* table, const u32* keys, const float* f,
    const u32* x_words, const u32* d_words, int samples, int tile_rows, int tile_cols, const i64* clock,
    i64 first_sample, int raise_only, u64* coincidences, const int* status
) {
    __shared__ u32 queue[WIDE * TOGETHER];       // sample and number of each hit, then its normal
    __shared__ u32 counts[WARPS][TOGETHER];      // hits of the columns of each warp
    __shared__ u32 votes[WARPS][TOGETHER];       // which columns these are
    __shared__ u32 places[WARPS][TOGETHER];      // where the first of them stands in the queue
    __shared__ u32 d_of[WARPS][TOGETHER];        // the row's trains; every warp has its own copy
    int t = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Tile tile = tile_at(table, t);
    if (*status) return;
    const u32* key = keys + KEYS * t;
    bool noisy = f[STD] > 0.0f;
    u32 below = (1u << lane) - 1;
    u64 found = 0;
    for (i64 row = blockIdx.y; row < tile.rows; row += gridDim.y) {
        for (int begin = 0; begin < samples; begin += TOGETHER) {
            i64 at = (i64)t * samples + begin;
            u64 sample = clock[CLOCK_SAMPLE] + first_sample + begin;
            u32 d_word = begin + lane < samples ? d_words[(at + lane) * tile_rows + row] : 0;  // of sample `lane`
            u32 firing = __ballot_sync(WARP, (d_word & SLOTS) != 0);
            if (firing == 0) continue;
            d_of[warp][lane] = d_word;
            u32 number = 0;  // hits of sample `lane` in the columns before
            for (i64 start = 0; start < tile.cols; start += WIDE) {
                i64 j = start + threadIdx.x;
                u32 hits = 0, mine = 0;
                for (u32 left = firing; left != 0; left &= left - 1) {
                    int b = __ffs(left) - 1;
                    u32 d = __shfl_sync(WARP, d_word, b), x = j < tile.cols ? x_words[(at + b) * tile_cols + j] : 0;
                    bool hit = (d & x & SLOTS) != 0 && !(raise_only && (d ^ x) <= SLOTS);
                    u32 vote = __ballot_sync(WARP, hit);
                    hits |= (u32)hit << b;
                    if (lane == b) mine = vote;
                }
                counts[warp][lane] = __popc(mine);
                __syncthreads();
                u32 before = 0, total = 0;
                for (int w = 0; w < WARPS; ++w) {
                    before += w < warp ? counts[w][lane] : 0;
                    total += counts[w][lane];
                }
                u32 up_to = total;  // hits of the samples up to `lane`
                for (int distance = 1; distance < 32; distance <<= 1) {
                    u32 other = __shfl_up_sync(WARP, up_to, distance);
                    if (lane >= distance) up_to += other;
                }
                u32 all = __shfl_sync(WARP, up_to, 31), place = up_to - total + before;
                votes[warp][lane] = mine;
                places[warp][lane] = place;
                __syncwarp(WARP);
                if (noisy) {
                    for (u32 left = firing; left != 0; left &= left - 1) {
                        int b = __ffs(left) - 1;
                        u32 of_sample = __shfl_sync(WARP, number + before, b), prior = __popc(votes[warp][b] & below);
                        if (hits >> b & 1) queue[places[warp][b] + prior] = (of_sample + prior) * TOGETHER + b;
                    }
                    __syncthreads();
                    for (u32 k = threadIdx.x; k < all; k += WIDE) {
                        u32 hit = queue[k];
                        float z = normal(hit / TOGETHER, sample + hit % TOGETHER, (u32)row, key + NOISE_KEY);
                        queue[k] = (u32)__float_as_int(z);
                    }
                }
                number += total;
                __syncthreads();
                if (hits == 0) continue;
                i64 cell = row * tile.cols + j, where = tile.offset + cell;
                Cell of = cell_at(lanes, stored, where, (u32)cell, key + DEVICE_KEY, f);
                float w = weights[where];
                for (u32 left = hits; left != 0; left &= left - 1) {
                    int b = __ffs(left) - 1;
                    u32 d = d_of[warp][b], x = x_words[(at + b) * tile_cols + j];
                    u32 slot = places[warp][b] + __popc(votes[warp][b] & below);
                    int n = __popc(d & x & SLOTS);
                    float z = noisy ? __int_as_float((int)queue[slot]) : 0.0f;
                    w = pulse(w, n, (d ^ x) <= SLOTS, of, z, f, key, sample + b, (u32)cell);
                    found += n;
                }
                weights[where] = w;
            }
        }
    }
    add_up(found, coincidences);
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

// As above, but the pulses of all samples of a cell are counted first, and have one normal.
extern "C" __global__ void __launch_bounds__(WIDE) update_per_batch(
    float* weights, const short* lanes, int stored, const i64* table, const u32* keys, const float* f,
    const u32* x_words, const u32* d_words, int samples, int tile_rows, int tile_cols, const i64* clock,
    i64 first_sample, int raise_only, u64* coincidences, const int* status
) {
    __shared__ u32 counts[WARPS];
    __shared__ float normals[WIDE];
    int t = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Tile tile = tile_at(table, t);
    if (*status) return;
    const u32* key = keys + KEYS * t;
    u64 sample = clock[CLOCK_SAMPLE] + first_sample, found = 0;
    for (i64 row = blockIdx.y; row < tile.rows; row += gridDim.y) {
        const u32* ds = d_words + (i64)t * samples * tile_rows + row;
        u32 fires = 0;
        for (int b = lane; b < samples; b += 32) fires |= ds[(i64)b * tile_rows] & SLOTS;
        if (__ballot_sync(WARP, fires != 0) == 0) continue;
        u32 number = 0;  // cells hit in the columns before
        for (i64 start = 0; start < tile.cols; start += WIDE) {
            i64 j = start + threadIdx.x;
            const u32* xs = x_words + (i64)t * samples * tile_cols + j;
            int ups = 0, downs = 0;
            for (int b = 0; b < samples; ++b) {
                u32 d = ds[(i64)b * tile_rows];
                if ((d & SLOTS) == 0) continue;
                u32 x = j < tile.cols ? xs[(i64)b * tile_cols] : 0;
                int n = __popc(d & x & SLOTS);
                if ((d ^ x) <= SLOTS) downs += raise_only ? 0 : n; else ups += n;
            }
            u32 vote = __ballot_sync(WARP, ups + downs > 0);
            if (lane == 0) counts[warp] = __popc(vote);
            __syncthreads();
            u32 before = 0, all = 0;
            for (int w = 0; w < WARPS; ++w) {
                before += w < warp ? counts[w] : 0;
                all += counts[w];
            }
            if (f[STD] > 0.0f && threadIdx.x < all)
                normals[threadIdx.x] = normal(number + threadIdx.x, sample, (u32)row, key + NOISE_KEY);
            number += all;
            __syncthreads();
            if (ups + downs == 0) continue;
            i64 cell = row * tile.cols + j, place = tile.offset + cell;
            Cell of = cell_at(lanes, stored, place, (u32)cell, key + DEVICE_KEY, f);
            float z = f[STD] > 0.0f ? normals[before + __popc(vote & ((1u << lane) - 1))] : 0.0f;
            weights[place] = pulse_batch(
                weights[place], ups, downs, of, z, f, key, sample, (u32)cell, xs, tile_cols, ds, tile_rows, samples,
                raise_only);
            found += ups + downs;
        }
    }
    add_up(found, coincidences);
}

// One thread per cell, or several cells if there are more than a grid can have.
#define FOR_CELLS(tile) \
    for (i64 cell = (i64)blockIdx.y * blockDim.x + threadIdx.x; cell < tile.rows * tile.cols; \
         cell += (i64)gridDim.y * blockDim.x)

// Plain gradient descent, one sample after the other.
extern "C" __global__ void update_exact(
    float* weights, const i64* table, const float* x, const float* d, int samples, int shard_cols, int shard_rows,
    const float* rate, const int* status
) {
    Tile tile = tile_at(table, blockIdx.x);
    if (*status) return;
    float lr = *rate;
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
