// The analog read, in rounds of convert, product and add; bound management starts another round for the tiles and
// samples that saturated.  Arrays lie as [tile][sample][line], padded to the largest tile.

#define FINE 0
#define OUT_OF_RANGE 1
#define NOT_FINITE 2

// One warp per tile and sample: its scale and DAC codes; decides first whether there is anything to do.
extern "C" __global__ void read_convert(
    const i64* table, const float* lines, int samples, int shard_lines, int padded, int backward, int abs_max,
    float in_step, int round, float* scale, int* pending, int* saturated, u64* repeats, float* v, int* status
) {
    int at = blockIdx.x, b = at % samples;
    Tile tile = tile_at(table, at / samples);
    i64 count = backward ? tile.rows : tile.cols;
    const float* values = lines + (i64)b * shard_lines + (backward ? tile.row0 : tile.col0);
    float factor;
    if (round == 0) {
        int peak = peak_bits(values, count);
        factor = abs_max ? __int_as_float(peak) : 1.0f;
        bool finite = peak < INFINITY_BITS;
        if (threadIdx.x == 0) {
            if (!finite) *status = NOT_FINITE;
            scale[at] = factor;
            pending[at] = finite && factor > 0.0f;
            saturated[at] = 0;
        }
        if (!finite || factor == 0.0f) return;
    } else {
        bool again = pending[at] && saturated[at];
        factor = scale[at] * 2.0f;
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
    for (i64 j = threadIdx.x; j < count; j += 32) {
        float code = values[j] / factor;
        if (in_step > 0.0f) code = rintf(code / in_step) * in_step;
        v[(i64)at * padded + j] = fminf(fmaxf(code, -1.0f), 1.0f);
    }
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
    const float* weights, const i64* table, const u32* keys, const float* v, int samples, int padded_in,
    int padded_out, int backward, i64 first_sample, float noise, float step, float limit, int round,
    const int* pending, int* saturated, float* y
) {
    int at = blockIdx.x, t = at / samples, b = at % samples;
    Tile tile = tile_at(table, t);
    i64 line = output_line(backward);
    if (!pending[at] || line >= (backward ? tile.cols : tile.rows)) return;
    float value = product(weights + tile.offset, tile, v + (i64)at * padded_in, line, backward);
    if (!backward && threadIdx.x != 0) return;
    if (noise > 0.0f) value = value + noise * normal((u32)line, first_sample + b, (u32)round, keys + 2 * t);
    if (step > 0.0f) value = rintf(value / step);
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
    if (!pending[at] || (saturated[at] && !last_round) || line >= (backward ? tile.cols : tile.rows)) return;
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
