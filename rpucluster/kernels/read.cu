// The analog read, in rounds of convert, product and add; bound management starts another round for the tiles and
// samples that saturated.  Arrays lie as [tile][sample][line], padded to the largest tile.  Places in the numbers n and
// f of a packed rule are READ_...; see read_rule.py, and reference_read.py for the specification.

#define FINE 0
#define OUT_OF_RANGE 1
#define NOT_FINITE 2

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

// One warp per tile and sample: its scale, or for running averages its largest magnitude.
extern "C" __global__ void read_scales(
    const i64* table, const float* lines, int samples, int shard_lines, int backward, const i64* n, const float* f,
    float* scale, int* pending, int* saturated, int* status
) {
    int at = blockIdx.x, b = at % samples;
    Tile tile = tile_at(table, at / samples);
    const float* values = lines + (i64)b * shard_lines + (backward ? tile.row0 : tile.col0);
    int peak = peak_bits(values, backward ? tile.rows : tile.cols);
    if (threadIdx.x != 0) return;
    bool finite = peak < INFINITY_BITS;
    if (!finite) *status = NOT_FINITE;
    float factor = __int_as_float(peak);
    if (n[READ_SCALING] == SCALING_NONE) factor = 1.0f;
    if (n[READ_SCALING] == SCALING_CONSTANT) factor = f[READ_SCALE];
    scale[at] = factor;
    pending[at] = finite && factor > 0.0f;
    saturated[at] = 0;
}

// One thread per tile: its running average goes on from sample to sample.
extern "C" __global__ void read_averages(
    int tiles, int samples, int learn, const float* f, float* averages, float* scale, int* pending, const int* status
) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= tiles || *status) return;
    float average = averages[t];
    for (int at = t * samples; at < (t + 1) * samples; ++at) {
        float peak = scale[at], factor = average > 0.0f ? average : peak;
        if (learn) average = average > 0.0f ? f[READ_DECAY] * average + f[READ_RISE] * peak : peak;
        scale[at] = factor;
        pending[at] = factor > 0.0f;
    }
    averages[t] = average;
}

// The scale at which weights up to the assumed one saturate no output, by a warp.
__device__ __forceinline__ float worst_case(const float* values, i64 count, float factor, float worst) {
    i64 total = 0;
    for (i64 j = threadIdx.x; j < count; j += 32)
        total += (i64)rintf(fminf(fabsf(values[j]) / factor, SUM_LIMIT) * SUM_SCALE);
    for (int distance = 16; distance > 0; distance >>= 1) total += __shfl_xor_sync(WARP, total, distance);
    return factor * fmaxf(worst * ((float)total * (1.0f / SUM_SCALE)), 1.0f);
}

// One warp per tile and sample: its DAC codes and the noise of its outputs; decides first whether there is anything to do.
extern "C" __global__ void read_convert(
    const i64* table, const u32* keys, const float* lines, int samples, int shard_lines, int padded, int backward,
    const i64* n, const float* f, i64 first_sample, int round, float* scale, int* pending, int* saturated, u64* repeats,
    float* v, float* noise, const int* status
) {
    int at = blockIdx.x, t = at / samples, b = at % samples;
    Tile tile = tile_at(table, t);
    const u32* key = keys + 2 * t;
    i64 count = backward ? tile.rows : tile.cols;
    const float* values = lines + (i64)b * shard_lines + (backward ? tile.row0 : tile.col0);
    float factor = scale[at], in_step = f[READ_IN_STEP];
    u64 sample = first_sample + b;
    if (*status || !pending[at]) return;
    if (round > 0) {
        bool again = saturated[at];
        if (again) factor = n[READ_WORST_CASE] ? worst_case(values, count, factor, f[READ_WORST]) : factor * 2.0f;
        __syncwarp(WARP);  // all lanes have read what lane 0 now writes
        if (threadIdx.x == 0) {
            pending[at] = again;
            saturated[at] = 0;
            if (again) {
                scale[at] = factor;
                atomicAdd(repeats, (u64)1);
            }
        }
        if (!again) return;
    }
    float power = 0.0f;
    for (i64 j = threadIdx.x; j < count; j += 32) {
        float code = values[j] / factor;
        if (in_step > 0.0f)
            code = to_code(code / in_step, n[READ_IN_STOCHASTIC], j, sample, INPUT_ROUNDING + round, key) * in_step;
        code = fminf(fmaxf(code, -1.0f), 1.0f);
        if (f[READ_IN_NOISE] > 0.0f)
            code = code + f[READ_IN_NOISE] * normal((u32)j, sample, INPUT_NOISE + round, key);
        v[(i64)at * padded + j] = code;
        power += code * code;
    }
    float std = f[READ_OUT_NOISE];
    if (f[READ_WEIGHT_POWER] > 0.0f) {
        for (int distance = 16; distance > 0; distance >>= 1) power += __shfl_xor_sync(WARP, power, distance);
        std = sqrtf(f[READ_OUT_POWER] + f[READ_WEIGHT_POWER] * power);
    }
    if (threadIdx.x == 0) noise[at] = std;
}

// Product of one output line, by a warp forward and by a thread backward, in an order that shape alone decides.
__device__ __forceinline__ float product(const float* w, Tile tile, const float* v, i64 line, int backward) {
    float sum = 0.0f;
    if (backward) {
        for (i64 i = 0; i < tile.rows; ++i) sum += w[i * tile.cols + line] * v[i];
    } else {
        for (i64 j = threadIdx.x; j < tile.cols; j += 32) sum += w[line * tile.cols + j] * v[j];
        for (int distance = 16; distance > 0; distance >>= 1) sum += __shfl_xor_sync(WARP, sum, distance);
    }
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
__device__ __forceinline__ float drop(const float* w, Tile tile, const float* v, i64 line, int backward, float twice) {
    float current = 0.0f, currents = 0.0f, conductance = 0.0f, conductances = 0.0f, lost = 0.0f;
    if (backward) {
        for (i64 i = 0; i < tile.rows; ++i) {
            float weight = w[i * tile.cols + line], both = fabsf(weight) + twice;
            current += weight * v[i];
            currents += both * v[i];
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
        float sent = there ? v[j] : 0.0f;
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

__device__ __forceinline__ void add_fixed(i64* sums, float value, int* status) {
    if (!(fabsf(value) < 4194304.0f)) {
        *status = OUT_OF_RANGE;
        return;
    }
    atomicAdd((u64*)sums, (u64)(i64)rint((double)value * 1099511627776.0));
}

// A block is 32 x 4 threads: four output lines forward, 128 backward.
__device__ __forceinline__ i64 output_line(int backward) {
    return backward ? ((i64)blockIdx.y * 4 + threadIdx.y) * 32 + threadIdx.x : (i64)blockIdx.y * 4 + threadIdx.y;
}

// Product, noise and ADC.
extern "C" __global__ void read_product(
    const float* weights, const i64* table, const u32* keys, const float* v, const float* noise, int samples,
    int padded_in, int padded_out, int backward, const i64* n, const float* f, i64 first_sample, int round,
    const int* pending, int* saturated, float* y, const int* status
) {
    int at = blockIdx.x, t = at / samples, b = at % samples;
    Tile tile = tile_at(table, t);
    i64 line = output_line(backward);
    if (*status || !pending[at] || line >= (backward ? tile.cols : tile.rows)) return;
    const float *w = weights + tile.offset, *sent = v + (i64)at * padded_in;
    float value = product(w, tile, sent, line, backward);
    if (f[READ_WIRE] > 0.0f)
        value -= f[READ_WIRE] * 0.5f * drop(w, tile, sent, line, backward, f[READ_BASELINE] * 2.0f);
    if (!backward && threadIdx.x != 0) return;
    float step = f[READ_OUT_STEP], limit = f[READ_LIMIT];
    u64 sample = first_sample + b;
    const u32* key = keys + 2 * t;
    if (noise[at] > 0.0f) value = value + noise[at] * normal((u32)line, sample, (u32)round, key);
    if (step > 0.0f) value = to_code(value / step, n[READ_OUT_STOCHASTIC], line, sample, OUTPUT_ROUNDING + round, key);
    if (fabsf(value) > limit) saturated[at] = 1;
    value = fminf(fmaxf(value, -limit), limit);
    y[(i64)at * padded_out + line] = step > 0.0f ? value * step : value;
}

// Adds what is final to the sums over tiles.
extern "C" __global__ void read_add(
    const i64* table, int samples, int shard_out, int padded_out, int backward, int last_round, const float* y,
    const float* scale, const int* pending, const int* saturated, i64* sums, int* status
) {
    int at = blockIdx.x, b = at % samples;
    Tile tile = tile_at(table, at / samples);
    i64 line = (i64)blockIdx.y * blockDim.x + threadIdx.x;
    if (*status == NOT_FINITE || !pending[at] || (saturated[at] && !last_round) || line >= (backward ? tile.cols : tile.rows)) return;
    i64 place = (i64)b * shard_out + (backward ? tile.col0 : tile.row0) + line;
    add_fixed(sums + place, y[(i64)at * padded_out + line] * scale[at], status);
}

// Product without converters and noise, straight into the sums.
extern "C" __global__ void read_exact(
    const float* weights, const i64* table, const float* lines, int samples, int shard_in, int shard_out,
    int backward, i64* sums, int* status
) {
    int at = blockIdx.x, b = at % samples;
    Tile tile = tile_at(table, at / samples);
    i64 line = output_line(backward);
    if (line >= (backward ? tile.cols : tile.rows)) return;
    const float* v = lines + (i64)b * shard_in + (backward ? tile.row0 : tile.col0);
    float value = product(weights + tile.offset, tile, v, line, backward);
    if (!backward && threadIdx.x != 0) return;
    add_fixed(sums + (i64)b * shard_out + (backward ? tile.col0 : tile.row0) + line, value, status);
}
