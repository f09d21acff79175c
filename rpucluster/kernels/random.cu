// Philox4x32-10 and Box-Muller with the bits of rpucluster.rng.  To be compiled without fused multiply-add:
// every + - * / and sqrt is one IEEE rounding, in the order in which it is written.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct Block { u32 w[4]; };

__device__ __forceinline__ Block philox(u32 c0, u64 sample, u32 round, const u32* key) {
    u32 c1 = (u32)sample, c2 = (u32)(sample >> 32), c3 = round, k0 = key[0], k1 = key[1];
    for (int r = 0; r < 10; ++r) {
        u64 p0 = (u64)0xD2511F53u * c0, p1 = (u64)0xCD9E8D57u * c2;
        c0 = (u32)(p1 >> 32) ^ c1 ^ k0;
        c1 = (u32)p1;
        c2 = (u32)(p0 >> 32) ^ c3 ^ k1;
        c3 = (u32)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Block block = {{c0, c1, c2, c3}};
    return block;
}

// One of the two normals that a pair of words makes: the cosine if `second` is 0, the sine if it is 1.
__device__ __forceinline__ float box_muller(u32 radius_word, u32 angle_word, int second) {
    float scaled = (float)(int)(radius_word >> 9) + 0.5f;
    int bits = __float_as_int(scaled);
    int exponent = (bits - 0x3F3504F3) >> 23;
    float f = __int_as_float(bits - exponent * (1 << 23)) - 1.0f;
    float e = (float)(exponent - 23);
    float f2 = f * f;
    float p = LOG7;
    p = p * f + LOG6;
    p = p * f + LOG5;
    p = p * f + LOG4;
    p = p * f + LOG3;
    p = p * f + LOG2;
    p = p * f + LOG1;
    p = p * f + LOG0;
    float tail = (f2 * f) * p - 0.5f * f2 + e * LN2_LOW;
    float log = e * LN2_HIGH + (f + tail);
    float radius = sqrtf(log * -2.0f);
    int position = (int)(angle_word << 2) >> 8;
    float a = ((float)position + 0.5f) * EIGHTH_TURN;
    float t = a * a;
    float sine = a + (a * t) * ((SIN2 * t + SIN1) * t + SIN0);
    float cosine = (1.0f - 0.5f * t) + (t * t) * ((COS2 * t + COS1) * t + COS0);
    int quarter = (int)(angle_word >> 30);
    // turned by 0 to 3 quarters: (c, s), (-s, c), (-c, -s), (s, -c)
    float side = (quarter + second) & 1 ? sine : cosine;
    bool negative = second ? quarter >= 2 : quarter == 1 || quarter == 2;
    return radius * (negative ? -side : side);
}

// Normal number i of a stream at (sample, round).
__device__ __forceinline__ float normal(u32 i, u64 sample, u32 round, const u32* key) {
    Block b = philox(i >> 2, sample, round, key);
    return (i & 2) ? box_muller(b.w[2], b.w[3], i & 1) : box_muller(b.w[0], b.w[1], i & 1);
}

// Lane number `i` of a cell, 0 to 3 of block `block`, from that block's words: a normal in units of 2^-12, but for the
// upper half of block 1, whose lanes are the upper halves of their words.
__device__ __forceinline__ short lane_of(const Block& b, u32 block, int i) {
    if (block == 1 && i >= 2) return (short)(b.w[i] >> 16);
    return (short)rintf(box_muller(b.w[i & 2], b.w[(i & 2) + 1], i & 1) * 4096.0f);
}

struct Tile { i64 offset, rows, cols, row0, col0; };

__device__ __forceinline__ Tile tile_at(const i64* table, int t) {
    const i64* r = table + 5 * (i64)t;
    Tile tile = {r[0], r[1], r[2], r[3], r[4]};
    return tile;
}

// How an operation ended, in the lower two bits of a status; the others say which row of a tape it belongs to.
#define OUT_OF_RANGE 1
#define NOT_FINITE 2

// Only the first problem is kept.  Kernels that change something do nothing after it.
__device__ __forceinline__ void fail(int* status, int problem) { atomicCAS(status, 0, problem); }

#define WARP 0xFFFFFFFFu
#define INFINITY_BITS 0x7F800000
// Threads of a block that works together, and its warps.
#define WIDE 256
#define WARPS 8

// Largest magnitude of n numbers, as bits, over the threads of a block of WIDE, for all of them; at or above
// INFINITY_BITS if not all numbers are finite.
__device__ __forceinline__ int peak_bits(const float* values, i64 n) {
    __shared__ int found[WARPS];
    int peak = 0;
    for (i64 j = threadIdx.x; j < n; j += WIDE) peak = max(peak, __float_as_int(values[j]) & 0x7FFFFFFF);
    for (int distance = 16; distance > 0; distance >>= 1) peak = max(peak, __shfl_xor_sync(WARP, peak, distance));
    if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = peak;
    __syncthreads();
    for (int w = 0; w < WARPS; ++w) peak = max(peak, found[w]);
    __syncthreads();  // the next call writes there
    return peak;
}

// Sum over the threads of such a block, for all of them, in an order that is always the same.
__device__ __forceinline__ float block_sum(float value) {
    __shared__ float found[WARPS];
    for (int distance = 16; distance > 0; distance >>= 1) value += __shfl_xor_sync(WARP, value, distance);
    if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = value;
    __syncthreads();
    value = 0.0f;
    for (int w = 0; w < WARPS; ++w) value += found[w];
    __syncthreads();
    return value;
}
