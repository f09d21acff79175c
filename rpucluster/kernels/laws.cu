// Updates of devices that are not plain; see rpucluster/kernels/reference_law.py.  Laws, tolerances and their order of
// operations are those of rpucluster/devices.

// Number of the draw, among the 32 of a cell in REPLAY_NOISE, of the pulses on one line alone.
#define ALONE 31
// First of the constants of a law.
#define OWN 13

// Tolerances of a cell of any device.
struct Wide { float up, down, low, high, e0, e1; };

__device__ __forceinline__ float above(float a, float least) { return a < least ? least : a; }
__device__ __forceinline__ float below(float a, float most) { return a > most ? most : a; }

// e^(high + low) of an unevaluated sum.
__device__ __forceinline__ float exp_sum(float high, float low) {
    float x = below(above(high, ELEMENTARY_EXP_MIN), ELEMENTARY_EXP_MAX);
    float n = (x * ELEMENTARY_INVERSE_LN2 + ELEMENTARY_ROUNDER) - ELEMENTARY_ROUNDER;
    float r = ((x - n * ELEMENTARY_LN2_HIGH) - n * ELEMENTARY_LN2_LOW) + low;
    float q = ELEMENTARY_EXP5;
    q = q * r + ELEMENTARY_EXP4;
    q = q * r + ELEMENTARY_EXP3;
    q = q * r + ELEMENTARY_EXP2;
    q = q * r + ELEMENTARY_EXP1;
    q = q * r + ELEMENTARY_EXP0;
    float scale = __int_as_float(((int)n + 127) << 23);
    return high < ELEMENTARY_EXP_MIN ? 0.0f : (1.0f + (r + (r * r) * q)) * scale;
}

// What rounding took from a * b.
__device__ __forceinline__ float product_error(float a, float b, float product) {
    float c = ELEMENTARY_SPLITTER * a, a_high = c - (c - a), a_low = a - a_high;
    c = ELEMENTARY_SPLITTER * b;
    float b_high = c - (c - b), b_low = b - b_high;
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
}

__device__ __forceinline__ float power(float base, float exponent) {
    int bits = __float_as_int(above(base, ELEMENTARY_SMALLEST));
    int whole = (bits - 0x3F3504F3) >> 23;
    float f = __int_as_float(bits - whole * (1 << 23)) - 1.0f, e = (float)whole;
    float t = 2.0f + f, t_low = f - (t - 2.0f), s = f / t, product = s * t;
    float s_low = (((f - product) - product_error(s, t, product)) - s * t_low) / t;
    float s2 = s * s;
    float q = ELEMENTARY_ATANH3;
    q = q * s2 + ELEMENTARY_ATANH2;
    q = q * s2 + ELEMENTARY_ATANH1;
    q = q * s2 + ELEMENTARY_ATANH0;
    float ahead = e * ELEMENTARY_LN2_HIGH, main = 2.0f * s, total = ahead + main, lost = main - (total - ahead);
    float low = lost + (2.0f * s_low + ((s * s2) * q + e * ELEMENTARY_LN2_LOW));
    float high = total + low;
    low = low - (high - total);
    float scaled = exponent * high;
    float result = exp_sum(scaled, product_error(exponent, high, scaled) + exponent * low);
    return base < ELEMENTARY_SMALLEST ? (exponent > 0.0f ? 0.0f : 1.0f) : result;
}

// Lanes of a cell, stored or made anew; those that the device does not have are 0.
struct Lanes { short of[12]; };

__device__ __forceinline__ Lanes lanes_at(
    const short* lanes, int stored, i64 place, u32 cell, const u32* key, const float* f
) {
    Lanes found;
    int count = (int)f[LANE_NUMBER];
    for (int block = 0; block < 3; ++block) {
        if (stored || 4 * block >= count) {
            for (int i = 4 * block; i < 4 * block + 4; ++i) found.of[i] = i < count ? lanes[count * place + i] : 0;
        } else {
            Block b = philox(cell, 0, block, key + DEVICE_KEY);
            for (int i = 0; i < 4; ++i) found.of[4 * block + i] = lane_of(b, block, i);
        }
    }
    return found;
}

__device__ __forceinline__ float normal_lane(short lane) { return (float)lane * LANE_UNIT; }
__device__ __forceinline__ float uniform_lane(short lane) {
    return ((float)(unsigned short)lane + 0.5f) * 0.0000152587890625f;
}
__device__ __forceinline__ float per_bound(float gamma, float bound) {
    return bound != 0.0f ? -fabsf(gamma) / bound : 0.0f;
}

__device__ Wide wide_cell(const Lanes& l, const float* f) {
    const float* c = f + CONSTANTS;
    int law = (int)f[LAW_NUMBER];
    float z4 = normal_lane(l.of[4]), z5 = normal_lane(l.of[5]), z11 = normal_lane(l.of[11]);
    float gain = c[1] * normal_lane(l.of[0]), r = c[2] * normal_lane(l.of[1]);
    gain = c[11] != 0.0f ? exp_sum(gain, 0.0f) : 1.0f + gain;
    Wide w = {
        ((gain + c[3]) + r) * c[0], ((gain + c[4]) - r) * c[0],
        c[7] * (1.0f + c[8] * normal_lane(l.of[3])), c[5] * (1.0f + c[6] * normal_lane(l.of[2])),
        0.0f, 0.0f};
    if (c[12] != 0.0f) {
        w.up = fabsf(w.up), w.down = fabsf(w.down);
        w.low = -fabsf(w.low), w.high = fabsf(w.high);
    }
    const float* own = c + OWN;
    if (law == LAW_LINEAR && own[0] == 0.0f) {
        float rise = own[1] + own[2] * z4, fall = own[3] + own[4] * z5;
        bool mean = own[5] != 0.0f;
        w.e0 = per_bound(rise, mean ? c[5] : w.high);
        w.e1 = per_bound(fall, mean ? c[7] : w.low);
    } else if (law == LAW_LINEAR) {
        float upper = w.high / fabsf(1.0f + own[1] * z5), lower = w.low / fabsf(1.0f + own[2] * z11);
        float shift = own[3] + own[4] * z4;
        w.e0 = per_bound(1.0f, upper);
        w.e1 = per_bound(1.0f, lower);
        float slopes = w.down * w.e1 - w.up * w.e0;
        if (own[5] != 0.0f) shift = shift + (slopes > 0.0f ? (w.up - w.down) / slopes : 0.0f);
        w.low = lower - shift;
        w.high = upper - shift;
    } else if (law == LAW_EXPONENTIAL || law == LAW_PIECEWISE) {
        float width = w.high - w.low, whole = law == LAW_PIECEWISE ? own[0] - 1.0f : 2.0f * own[4];
        w.e0 = width > 0.0f ? whole / width : 0.0f;
    } else if (law == LAW_POWER) {
        float both = 1.0f + own[1] * z4, apart = own[2] * z5;
        w.e0 = fabsf((both + own[3]) + apart) * own[0];
        w.e1 = fabsf((both + own[4]) - apart) * own[0];
    }
    if (c[9] > 0.0f && uniform_lane(l.of[6]) < c[9]) {
        float low = below(above(-c[10], w.low), w.high), high = below(above(c[10], w.low), w.high);
        float value = low + (high - low) * uniform_lane(l.of[7]);
        Wide held = {0.0f, 0.0f, value, value, 0.0f, 0.0f};
        return held;
    }
    return w;
}

// Size of n pulses that meet the weight w, with noise = (std sqrt(n)) z.
__device__ float amount(float w, bool lowers, float n, float noise, const Wide& of, const float* f) {
    const float* own = f + CONSTANTS + OWN;
    int law = (int)f[LAW_NUMBER];
    float step = lowers ? of.down : of.up, size = step, spread = step, number = lowers ? of.e1 : of.e0;
    if (law == LAW_LINEAR) {
        size = step * (own[0] != 0.0f ? (w - (lowers ? of.low : of.high)) * number : 1.0f + number * w);
        spread = f[ADDITIVE] != 0.0f ? step : size;
    } else if (law == LAW_EXPONENTIAL) {
        float place = of.e0 * w + own[5], gamma = lowers ? -own[3] : own[1];
        size = step * above(1.0f - (lowers ? own[2] : own[0]) * exp_sum(gamma * place, 0.0f), 0.0f);
        spread = (own[6] + size) + own[7] * fabsf(w);
    } else if (law == LAW_POWER) {
        float width = of.high - of.low, distance = lowers ? w - of.low : of.high - w;
        float share = above(distance, 0.0f) / (width > 0.0f ? width : 1.0f);
        size = spread = step * power(below(share, 1.0f), number);
    } else if (law == LAW_PIECEWISE) {
        int last = (int)own[0] - 1;
        float place = below(above((w - of.low) * of.e0, 0.0f), (float)last);
        int node = (int)place < last - 1 ? (int)place : last - 1;
        float share = place - (float)node;
        const float* curve = own + 1 + (lowers ? last + 1 : 0) + node;
        size = spread = step * ((1.0f - share) * curve[0] + share * curve[1]);
    }
    return size * n + spread * noise;
}

__device__ __forceinline__ float moved(float w, bool lowers, float by, const Wide& of) {
    return below(above(lowers ? w - by : w + by, of.low), of.high);
}

// What a sample does to a cell: n coincidences one by one, of which the first has the normal z, then pulses on one line
// alone, then write noise.
__device__ void fire(
    float* weights, float* hidden, i64 place, int n, int alone, bool lowers, const Wide& of, float z, const float* f,
    const u32* key, u64 sample, u32 cell
) {
    float std = f[STD], noise = f[WRITE_NOISE];
    float w = noise > 0.0f ? hidden[place] : weights[place];
    const u32* draws = key + REPLAY_KEY;
    for (int pulse = 0; pulse < n; ++pulse) {
        if (pulse > 0 && std > 0.0f) z = normal(32 * cell + pulse, sample, 0, draws);
        w = moved(w, lowers, amount(w, lowers, 1.0f, std * z, of, f), of);
    }
    if (alone > 0) {
        float many = (float)alone, draw = std > 0.0f ? normal(32 * cell + ALONE, sample, 0, draws) : 0.0f;
        w = moved(w, lowers, amount(w, lowers, many, (std * sqrtf(many)) * draw, of, f) * f[HALF_SELECT], of);
    }
    if (noise > 0.0f) {
        hidden[place] = w;
        w = w + noise * normal(32 * cell, sample, 0, draws);
    }
    weights[place] = w;
}

// One warp per row, samples in order; a lane always has the same columns, so the weights need no exchange.
extern "C" __global__ void laws_per_sample(
    float* weights, float* hidden, const short* lanes, int stored, const i64* table, const u32* keys, const float* f,
    const u32* x_words, const u32* d_words, int samples, int tile_rows, int tile_cols, const i64* clock,
    i64 from_clock, int raise_only, u64* coincidences, const int* status
) {
    int t = blockIdx.x, lane = threadIdx.x;
    i64 first_sample = clock[CLOCK_SAMPLE] + from_clock;
    i64 row = (i64)blockIdx.y * blockDim.y + threadIdx.y;
    Tile tile = tile_at(table, t);
    if (*status || row >= tile.rows) return;
    const u32* key = keys + KEYS * t;
    bool half = f[HALF_SELECT] > 0.0f;
    u64 found = 0;
    for (int b = 0; b < samples; ++b) {
        i64 at = (i64)t * samples + b;
        u32 d_word = d_words[at * tile_rows + row];
        if ((d_word & SLOTS) == 0 && !half) continue;
        u32 hits = 0;
        for (i64 start = 0; start < tile.cols; start += 32) {
            i64 j = start + lane;
            u32 x_word = j < tile.cols ? x_words[at * tile_cols + j] : 0;
            bool lowers = (d_word ^ x_word) <= SLOTS, counts = j < tile.cols && !(lowers && raise_only);
            int n = counts ? __popc(d_word & x_word & SLOTS) : 0;
            int alone = counts && half ? __popc((d_word ^ x_word) & SLOTS) : 0;
            u32 vote = __ballot_sync(WARP, n > 0);
            if (n + alone > 0) {
                u32 ordinal = hits + __popc(vote & ((1u << lane) - 1));
                i64 cell = row * tile.cols + j, place = tile.offset + cell;
                Wide of = wide_cell(lanes_at(lanes, stored, place, (u32)cell, key, f), f);
                float z = 0.0f;
                if (n > 0 && f[STD] > 0.0f) z = normal(ordinal, first_sample + b, (u32)row, key + NOISE_KEY);
                fire(weights, hidden, place, n, alone, lowers, of, z, f, key, first_sample + b, (u32)cell);
                found += n;
            }
            hits += __popc(vote);
        }
    }
    if (found) atomicAdd(coincidences, found);
}

// What the time of an update operation does to all cells.
extern "C" __global__ void laws_relax(
    float* weights, float* hidden, const short* lanes, int stored, const i64* table, const u32* keys, const float* f,
    const i64* clock, i64 from_clock, const int* status
) {
    Tile tile = tile_at(table, blockIdx.x);
    if (*status) return;
    i64 first_sample = clock[CLOCK_SAMPLE] + from_clock;
    const u32* key = keys + KEYS * blockIdx.x;
    FOR_CELLS(tile) {
        i64 place = tile.offset + cell;
        Lanes l = lanes_at(lanes, stored, place, (u32)cell, key, f);
        Wide of = wide_cell(l, f);
        float w = f[WRITE_NOISE] > 0.0f ? hidden[place] : weights[place];
        if (f[LIFETIME] > 0.0f) {
            float lifetime = f[LIFETIME] * (1.0f + f[LIFETIME_DTOD] * normal_lane(l.of[8]));
            float keep = 1.0f - 1.0f / above(lifetime, 1.0f), rest = f[REST] + f[REST_DTOD] * normal_lane(l.of[10]);
            w = (w - rest) * keep + rest;
        }
        if (f[DIFFUSION] > 0.0f) {
            float size = fabsf(f[DIFFUSION] * (1.0f + f[DIFFUSION_DTOD] * normal_lane(l.of[9])));
            w = w + size * normal((u32)cell, first_sample, 0, key + RELAXATION_KEY);
        }
        w = below(above(w, of.low), of.high);
        if (f[WRITE_NOISE] > 0.0f) {
            hidden[place] = w;
            w = w + f[WRITE_NOISE] * normal((u32)cell, first_sample, 1, key + RELAXATION_KEY);
        }
        weights[place] = w;
    }
}
