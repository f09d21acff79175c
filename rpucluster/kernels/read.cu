// The analog read: scales and DAC codes, products in slices of the inputs, noise and ADC, further rounds for the tiles and
// samples that saturate, and the sums over tiles.  Arrays lie as [tile][sample][line], padded to the largest tile.  Places
// in the numbers n and f of a packed rule are READ_...; see read_rule.py, and reference_read.py for the specification.

// Uniform number i of a stream at (sample, round): 24 bits in [0, 1).
__device__ __forceinline__ float uniform(u32 i, u64 sample, u32 round, const u32* key) {
    return (float)(int)(philox(i >> 2, sample, round, key).w[i & 3] >> 8) * 5.9604644775390625e-8f;
}

// Nearest code, half to even, or that above or below with the probability that keeps the mean.
__device__ __forceinline__ float to_code(float code, i64 stochastic, i64 line, u64 sample, u32 round, const u32* key) {
    if (!stochastic) return rintf(code);
    float whole = floorf(code);
    return whole + (uniform((u32)line, sample, round, key) < code - whole ? 1.0f : 0.0f);
}

// The scale at which weights up to the assumed one saturate no output, by a warp.
__device__ __forceinline__ float worst_case(const float* values, i64 count, float factor, float worst) {
    i64 total = 0;
    for (i64 j = threadIdx.x; j < count; j += 32)
        total += (i64)rintf(fminf(fabsf(values[j]) / factor, SUM_LIMIT) * SUM_SCALE);
    for (int distance = 16; distance > 0; distance >>= 1) total += __shfl_xor_sync(WARP, total, distance);
    return factor * fmaxf(worst * ((float)total * (1.0f / SUM_SCALE)), 1.0f);
}

// What a tile is driven with: DAC codes made from a vector, or those that were made before.
struct Driven {
    const float *values, *f;
    const i64* n;
    const u32* key;
    u64 sample;
    u32 round;
    float factor;
    __device__ __forceinline__ float operator()(i64 j) const {
        float code = values[j] / factor, step = f[READ_IN_STEP];
        if (step > 0.0f)
            code = to_code(code / step, n[READ_IN_STOCHASTIC], j, sample, INPUT_ROUNDING + round, key) * step;
        code = fminf(fmaxf(code, -1.0f), 1.0f);
        if (f[READ_IN_NOISE] > 0.0f)
            code = code + f[READ_IN_NOISE] * normal((u32)j, sample, INPUT_NOISE + round, key);
        return code;
    }
};
struct Sent {
    const float* v;
    __device__ __forceinline__ float operator()(i64 j) const { return v[j]; }
};

// Standard deviation of an output, from the sum of the squares of the codes.
__device__ __forceinline__ float output_noise(const float* f, float power) {
    return f[READ_WEIGHT_POWER] > 0.0f ? sqrtf(f[READ_OUT_POWER] + f[READ_WEIGHT_POWER] * power) : f[READ_OUT_NOISE];
}

// A block's codes of one tile and sample, and the noise of its outputs.
__device__ __forceinline__ void convert(Driven driven, i64 count, float* v, float* noise) {
    float power = 0.0f;
    for (i64 j = threadIdx.x; j < count; j += WIDE) {
        float code = driven(j);
        v[j] = code;
        power += code * code;
    }
    if (driven.f[READ_WEIGHT_POWER] > 0.0f) power = block_sum(power);
    if (threadIdx.x == 0) *noise = output_noise(driven.f, power);
}

// One block per tile and sample: its scale, or for running averages its largest magnitude, and its codes if `converts`.
// A scale of 0 means exact zeros.
extern "C" __global__ void __launch_bounds__(WIDE) read_scales(
    const i64* table, const u32* keys, const float* lines, int samples, int shard_lines, int padded, int backward,
    int converts, const i64* n, const float* f, const i64* clock, i64 first_sample, int rounds, float* scale,
    int* saturated, float* v, float* noise, int* status, int mark
) {
    int at = blockIdx.x, t = at / samples, b = at % samples;
    Tile tile = tile_at(table, t);
    const float* values = lines + (i64)b * shard_lines + (backward ? tile.row0 : tile.col0);
    i64 count = backward ? tile.rows : tile.cols;
    int peak = peak_bits(values, count);
    bool finite = peak < INFINITY_BITS;
    float factor = __int_as_float(peak);
    if (n[READ_SCALING] == SCALING_NONE) factor = 1.0f;
    if (n[READ_SCALING] == SCALING_CONSTANT) factor = f[READ_SCALE];
    if (threadIdx.x == 0) {
        if (!finite) fail(status, mark | NOT_FINITE);
        scale[at] = finite ? factor : 0.0f;
        noise[at] = 0.0f;
        for (int round = 0; round <= rounds; ++round) saturated[(i64)round * gridDim.x + at] = 0;
    }
    if (!converts || !finite || !(factor > 0.0f)) return;
    __syncthreads();  // the noise is written after its 0
    Driven driven = {values, f, n, keys + 2 * t, (u64)(clock[CLOCK_SAMPLE] + first_sample + b), 0, factor};
    convert(driven, count, v + (i64)at * padded, noise + at);
}

// One thread per tile: its running average goes on from sample to sample.
extern "C" __global__ void read_averages(
    int tiles, int samples, int learn, const float* f, float* averages, float* scale, const int* status
) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= tiles || *status) return;
    float average = averages[t];
    for (int at = t * samples; at < (t + 1) * samples; ++at) {
        float peak = scale[at], factor = average > 0.0f ? average : peak;
        if (learn) average = average > 0.0f ? f[READ_DECAY] * average + f[READ_RISE] * peak : peak;
        scale[at] = factor;
    }
    averages[t] = average;
}

// One block per tile and sample: codes for scales that had to wait for running averages.
extern "C" __global__ void __launch_bounds__(WIDE) read_convert(
    const i64* table, const u32* keys, const float* lines, int samples, int shard_lines, int padded, int backward,
    const i64* n, const float* f, const i64* clock, i64 first_sample, const float* scale, float* v, float* noise,
    const int* status
) {
    int at = blockIdx.x, t = at / samples, b = at % samples;
    Tile tile = tile_at(table, t);
    if (*status || !(scale[at] > 0.0f)) return;
    const float* values = lines + (i64)b * shard_lines + (backward ? tile.row0 : tile.col0);
    Driven driven = {values, f, n, keys + 2 * t, (u64)(clock[CLOCK_SAMPLE] + first_sample + b), 0, scale[at]};
    convert(driven, backward ? tile.rows : tile.cols, v + (i64)at * padded, noise + at);
}

// --- products ---

// A block makes PRODUCT_LINES outputs of a tile for SAMPLES vectors over one slice of PRODUCT_SLICE inputs, PRODUCT_STAGE
// of them in shared memory at a time, the next ones on their way meanwhile; a thread has L outputs of B vectors.  Each
// output adds its inputs in their order, whatever the other vectors are, and the slices are added in their order.
#define PRODUCT_STAGE 32
#define PRODUCT_THREADS 128
#define PRODUCT_LOADS (PRODUCT_LINES * PRODUCT_STAGE / PRODUCT_THREADS)
template <int L, int B>
__device__ __forceinline__ void product_slice(
    const float* weights, const i64* table, const float* v, i64 v_tile, i64 v_sample, int shifted, int samples,
    int slices, int groups, int padded_out, int backward, float* parts, const int* status
) {
    const int SAMPLES = 2 * L * B, APART = PRODUCT_LINES / L, ROOM = SAMPLES + 4;
    const int V_LOADS = (SAMPLES * PRODUCT_STAGE + PRODUCT_THREADS - 1) / PRODUCT_THREADS;
    __shared__ float ws[PRODUCT_STAGE][PRODUCT_LINES + 1];
    __shared__ __align__(16) float vs[PRODUCT_STAGE][ROOM];
    int thread = threadIdx.x, together = (samples + SAMPLES - 1) / SAMPLES;
    int b0 = blockIdx.x % together * SAMPLES, rest = blockIdx.x / together;
    i64 line0 = (i64)(rest % groups) * PRODUCT_LINES;
    int slice = rest / groups % slices, t = rest / groups / slices;
    Tile tile = tile_at(table, t);
    i64 in = backward ? tile.rows : tile.cols, out = backward ? tile.cols : tile.rows;
    i64 first = (i64)slice * PRODUCT_SLICE, last = first + PRODUCT_SLICE < in ? first + PRODUCT_SLICE : in;
    if (*status || line0 >= out || first >= in) return;
    const float *w = weights + tile.offset, *sent = v + t * v_tile + (shifted ? (backward ? tile.row0 : tile.col0) : 0);
    float next_w[PRODUCT_LOADS], next_v[V_LOADS], sum[L][B];
    for (int l = 0; l < L; ++l)
        for (int b = 0; b < B; ++b) sum[l][b] = 0.0f;
    for (i64 begin = first - PRODUCT_STAGE; begin < last; begin += PRODUCT_STAGE) {
        i64 ahead = begin + PRODUCT_STAGE;
        if (begin >= first) {
            __syncthreads();  // all have used what was there
            for (int i = 0; i < PRODUCT_LOADS; ++i) {
                int e = i * PRODUCT_THREADS + thread;
                if (backward) ws[e / PRODUCT_LINES][e % PRODUCT_LINES] = next_w[i];
                else ws[e % PRODUCT_STAGE][e / PRODUCT_STAGE] = next_w[i];
            }
            for (int i = 0; i < V_LOADS; ++i) {
                int e = i * PRODUCT_THREADS + thread;
                if (e < SAMPLES * PRODUCT_STAGE) vs[e % PRODUCT_STAGE][e / PRODUCT_STAGE] = next_v[i];
            }
            __syncthreads();
        }
        if (ahead < last) {
#pragma unroll
            for (int i = 0; i < PRODUCT_LOADS; ++i) {  // neighbours in a warp are neighbours in memory
                int e = i * PRODUCT_THREADS + thread;
                i64 k = ahead + (backward ? e / PRODUCT_LINES : e % PRODUCT_STAGE);
                i64 line = line0 + (backward ? e % PRODUCT_LINES : e / PRODUCT_STAGE);
                bool there = k < last && line < out;
                next_w[i] = there ? w[backward ? k * tile.cols + line : line * tile.cols + k] : 0.0f;
            }
#pragma unroll
            for (int i = 0; i < V_LOADS; ++i) {
                int e = i * PRODUCT_THREADS + thread, b = b0 + e / PRODUCT_STAGE;
                i64 k = ahead + e % PRODUCT_STAGE;
                bool there = k < last && e < SAMPLES * PRODUCT_STAGE && b < samples;
                next_v[i] = there ? sent[b * v_sample + k] : 0.0f;
            }
        }
        if (begin < first) continue;
#pragma unroll 8
        for (int k = 0; k < PRODUCT_STAGE; ++k) {
            float of_line[L], of_sample[B];
            for (int l = 0; l < L; ++l) of_line[l] = ws[k][thread % APART + APART * l];
            for (int b = 0; b < B; ++b) of_sample[b] = vs[k][thread / APART * B + b];
            for (int l = 0; l < L; ++l)
                for (int b = 0; b < B; ++b) sum[l][b] = fmaf(of_line[l], of_sample[b], sum[l][b]);
        }
    }
    i64 each = (i64)gridDim.x / together / groups / slices * samples;
    for (int b = 0; b < B; ++b) {
        int sample = b0 + thread / APART * B + b;
        i64 place = (slice * each + (i64)t * samples + sample) * padded_out + line0 + thread % APART;
        for (int l = 0; l < L; ++l)
            if (sample < samples && line0 + thread % APART + APART * l < out) parts[place + APART * l] = sum[l][b];
    }
}

extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS) read_product_2(
    const float* weights, const i64* table, const float* v, i64 v_tile, i64 v_sample, int shifted, int samples,
    int slices, int groups, int padded_out, int backward, float* parts, const int* status
) {
    product_slice<1, 1>(
        weights, table, v, v_tile, v_sample, shifted, samples, slices, groups, padded_out, backward, parts, status);
}

extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS) read_product_8(
    const float* weights, const i64* table, const float* v, i64 v_tile, i64 v_sample, int shifted, int samples,
    int slices, int groups, int padded_out, int backward, float* parts, const int* status
) {
    product_slice<2, 2>(
        weights, table, v, v_tile, v_sample, shifted, samples, slices, groups, padded_out, backward, parts, status);
}

extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS) read_product_32(
    const float* weights, const i64* table, const float* v, i64 v_tile, i64 v_sample, int shifted, int samples,
    int slices, int groups, int padded_out, int backward, float* parts, const int* status
) {
    product_slice<4, 4>(
        weights, table, v, v_tile, v_sample, shifted, samples, slices, groups, padded_out, backward, parts, status);
}

// Product of one output line where a few are wanted, by a warp forward and by a thread backward; adds up the squares of
// what the tile is driven with.
template <class V>
__device__ __forceinline__ float product(const float* w, Tile tile, V v, i64 line, int backward, float* power) {
    float sum = 0.0f, squares = 0.0f;
    if (backward) {
        for (i64 i = 0; i < tile.rows; ++i) {
            float sent = v(i);
            sum += w[i * tile.cols + line] * sent;
            squares += sent * sent;
        }
    } else {
        for (i64 j = threadIdx.x; j < tile.cols; j += 32) {
            float sent = v(j);
            sum += w[line * tile.cols + j] * sent;
            squares += sent * sent;
        }
        for (int distance = 16; distance > 0; distance >>= 1) {
            sum += __shfl_xor_sync(WARP, sum, distance);
            squares += __shfl_xor_sync(WARP, squares, distance);
        }
    }
    *power = squares;
    return sum;
}

// Sums up to and with each lane's value; a warp has one line.
__device__ __forceinline__ float prefix(float value) {
    for (int distance = 1; distance < 32; distance <<= 1) {
        float before = __shfl_up_sync(WARP, value, distance);
        if ((int)threadIdx.x >= distance) value += before;
    }
    return value;
}

// Voltage drop of one output line, in units of half a wire resistance: prefix sums of currents times those of
// conductances; see reference_read.voltage_drop.
template <class V>
__device__ __forceinline__ float drop(const float* w, Tile tile, V v, i64 line, int backward, float twice) {
    float current = 0.0f, currents = 0.0f, conductance = 0.0f, conductances = 0.0f, lost = 0.0f;
    if (backward) {
        for (i64 i = 0; i < tile.rows; ++i) {
            float weight = w[i * tile.cols + line], both = fabsf(weight) + twice;
            float sent = v(i);
            current += weight * sent;
            currents += both * sent;
            conductance += weight;
            conductances += both;
            lost += current * conductances + currents * conductance;
        }
        return lost;
    }
    for (i64 first = 0; first < tile.cols; first += 32) {
        i64 j = first + threadIdx.x;
        bool there = j < tile.cols;
        float weight = there ? w[line * tile.cols + j] : 0.0f, both = there ? fabsf(weight) + twice : 0.0f;
        float sent = there ? v(j) : 0.0f;
        float a = current + prefix(weight * sent), b = currents + prefix(both * sent);
        float c = conductance + prefix(weight), d = conductances + prefix(both);
        if (there) lost += a * d + b * c;
        current = __shfl_sync(WARP, a, 31);
        currents = __shfl_sync(WARP, b, 31);
        conductance = __shfl_sync(WARP, c, 31);
        conductances = __shfl_sync(WARP, d, 31);
    }
    for (int distance = 16; distance > 0; distance >>= 1) lost += __shfl_xor_sync(WARP, lost, distance);
    return lost;
}

// Lines of blocks of 32 x WARPS threads, from the first on: one for each warp forward, one for each thread backward.
#define FOR_LINES(line, out) \
    for (i64 line = backward ? ((i64)blockIdx.y * WARPS + threadIdx.y) * 32 + threadIdx.x \
                             : (i64)blockIdx.y * WARPS + threadIdx.y; \
         line < (out); line += (i64)gridDim.y * WARPS * (backward ? 32 : 1))

// Voltage drops of all lines.
extern "C" __global__ void read_drop(
    const float* weights, const i64* table, const float* v, int samples, int padded_in, int padded_out, int backward,
    const float* f, const float* scale, float* lost, const int* status
) {
    int at = blockIdx.x;
    Tile tile = tile_at(table, at / samples);
    if (*status || !(scale[at] > 0.0f)) return;
    Sent sent = {v + (i64)at * padded_in};
    FOR_LINES(line, backward ? tile.cols : tile.rows) {
        float found = drop(weights + tile.offset, tile, sent, line, backward, f[READ_BASELINE] * 2.0f);
        if (backward || threadIdx.x == 0) lost[(i64)at * padded_out + line] = f[READ_WIRE] * 0.5f * found;
    }
}

// Noise and ADC of one output.
__device__ __forceinline__ float output(
    float value, float std, const i64* n, const float* f, i64 line, u64 sample, u32 round, const u32* key, int* saturated
) {
    float step = f[READ_OUT_STEP], limit = f[READ_LIMIT];
    if (std > 0.0f) value = value + std * normal((u32)line, sample, round, key);
    if (step > 0.0f) value = to_code(value / step, n[READ_OUT_STOCHASTIC], line, sample, OUTPUT_ROUNDING + round, key);
    if (fabsf(value) > limit) *saturated = 1;
    value = fminf(fmaxf(value, -limit), limit);
    return step > 0.0f ? value * step : value;
}

// The output of a line from the products of its slices; `place` is that of the line among all lines.
__device__ __forceinline__ float first_output(
    const float* parts, i64 apart, i64 place, i64 in, const float* lost, float std, const i64* n, const float* f,
    i64 line, u64 sample, const u32* key, int* saturated
) {
    float value = parts[place];
    for (i64 slice = 1; slice * PRODUCT_SLICE < in; ++slice) value += parts[slice * apart + place];
    if (f[READ_WIRE] > 0.0f) value -= lost[place];
    return output(value, std, n, f, line, sample, 0, key, saturated);
}

// One thread per output line of a tile and sample, where further rounds may follow.
extern "C" __global__ void read_finish(
    const i64* table, const u32* keys, const float* parts, const float* lost, const float* noise, int samples,
    int padded_out, int backward, const i64* n, const float* f, const i64* clock, i64 first_sample, const float* scale,
    int* saturated, float* y, const int* status
) {
    int at = blockIdx.x, t = at / samples;
    Tile tile = tile_at(table, t);
    if (*status || !(scale[at] > 0.0f)) return;
    i64 in = backward ? tile.rows : tile.cols, out = backward ? tile.cols : tile.rows;
    u64 sample = clock[CLOCK_SAMPLE] + first_sample + at % samples;
    for (i64 line = (i64)blockIdx.y * blockDim.x + threadIdx.x; line < out; line += (i64)gridDim.y * blockDim.x) {
        i64 place = (i64)at * padded_out + line;
        y[place] = first_output(
            parts, (i64)gridDim.x * padded_out, place, in, lost, noise[at], n, f, line, sample, keys + 2 * t,
            saturated + at);
    }
}

// Rounds first to last of bound management, for the tiles and samples that saturated in the round before.  Several rounds
// in one launch are the work of one block.
extern "C" __global__ void __launch_bounds__(WIDE) read_again(
    const float* weights, const i64* table, const u32* keys, const float* lines, int samples, int shard_in,
    int padded_out, int backward, const i64* n, const float* f, const i64* clock, i64 first_sample, int first, int last,
    float* scale, int* saturated, float* y, const int* status
) {
    int at = blockIdx.x, t = at / samples, b = at % samples;
    Tile tile = tile_at(table, t);
    if (*status || !(scale[at] > 0.0f)) return;
    const float *w = weights + tile.offset, *values = lines + (i64)b * shard_in + (backward ? tile.row0 : tile.col0);
    i64 in = backward ? tile.rows : tile.cols, each = gridDim.x;
    u64 sample = clock[CLOCK_SAMPLE] + first_sample + b;
    const u32* key = keys + 2 * t;
    for (int round = first; round <= last; ++round) {
        if (!saturated[(round - 1) * each + at]) return;
        float before = scale[(round - 1) * each + at];
        float factor = n[READ_WORST_CASE] ? worst_case(values, in, before, f[READ_WORST]) : before * 2.0f;
        if (blockIdx.y == 0 && threadIdx.x == 0 && threadIdx.y == 0) scale[round * each + at] = factor;
        Driven driven = {values, f, n, key, sample, (u32)round, factor};
        FOR_LINES(line, backward ? tile.cols : tile.rows) {
            float power;
            float value = product(w, tile, driven, line, backward, &power);
            if (f[READ_WIRE] > 0.0f)
                value -= f[READ_WIRE] * 0.5f * drop(w, tile, driven, line, backward, f[READ_BASELINE] * 2.0f);
            if (!backward && threadIdx.x != 0) continue;
            y[(i64)at * padded_out + line] =
                output(value, output_noise(f, power), n, f, line, sample, round, key, saturated + round * each + at);
        }
        if (round < last) __syncthreads();
    }
}

// One thread per output line of the shard and sample: the sum over the tiles, in their order.  Without further rounds the
// outputs are made here.
extern "C" __global__ void read_sums(
    const i64* table, const u32* keys, const float* parts, const float* lost, const float* noise, const float* y,
    int samples, int tiles, int columns, int tile_out, int shard_out, int padded_out, int backward, const i64* n,
    const float* f, const i64* clock, i64 first_sample, int rounds, const float* scale, int* saturated, u64* repeats,
    i64* sums, int* status, int mark
) {
    int b = blockIdx.x;
    i64 each = (i64)tiles * samples;
    if (*status) return;
    u64 sample = clock[CLOCK_SAMPLE] + first_sample + b;
    for (i64 line = (i64)blockIdx.y * blockDim.x + threadIdx.x; line < shard_out; line += (i64)gridDim.y * blockDim.x) {
        int band = (int)(line / tile_out), added = backward ? tiles / columns : columns;
        i64 total = 0;
        bool inside = true;
        for (int i = 0; i < added; ++i) {
            int t = backward ? i * columns + band : band * columns + i;
            i64 at = (i64)t * samples + b;
            if (!(scale[at] > 0.0f)) continue;
            Tile tile = tile_at(table, t);
            i64 own = line - (backward ? tile.col0 : tile.row0), place = at * padded_out + own;
            float value;
            int round = 0;
            if (rounds > 0) {
                while (round < rounds && saturated[round * each + at]) ++round;
                if (round > 0 && own == 0) atomicAdd(repeats, (u64)round);
                value = y[place];
            } else {
                value = first_output(
                    parts, each * padded_out, place, backward ? tile.rows : tile.cols, lost, noise[at], n, f, own,
                    sample, keys + 2 * t, saturated + at);
            }
            value = value * scale[round * each + at];
            inside = inside && fabsf(value) < FIXED_LIMIT;
            if (!inside) break;
            total += (i64)rint((double)value * FIXED_SCALE);
            inside = (total < 0 ? -total : total) < FIXED_MOST;
        }
        if (!inside) fail(status, mark | OUT_OF_RANGE);
        sums[(i64)b * shard_out + line] = total;
    }
}
