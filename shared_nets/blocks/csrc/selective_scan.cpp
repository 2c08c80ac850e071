// The selective scan on a processor, forward and backward; see selective_scan.py for the recurrence.
//
// Letters: B batch, G groups, E channels of a group, N states, L tokens, W lanes of a vector, T tokens of a block.
//
// A vector holds one state of W neighbouring channels, so that nothing is summed across lanes but the gradients
// of B and C, once a block. A tile is W channels of one group; its tokens go through in blocks whose inputs lie
// in the first-level cache, transposed on the way where tokens, not channels, are neighbours in memory. The
// forward pass keeps the states at each block's start; the backward pass computes a block's states again.
// Work is split by tiles alike for any number of threads, so that this number does not change a bit.
//
// Plain C interface, no header of torch: compiled in seconds, and valid for any version of it.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>
#if defined(__AVX512F__) && defined(__AVX512DQ__) && !defined(SCAN_PORTABLE)
#include <immintrin.h>
#define SCAN_AVX512 1
#endif

namespace {

#if defined(__AVX512F__) && !defined(SCAN_PORTABLE)
constexpr int W = 16;
#else
constexpr int W = 8;
#endif
typedef float V __attribute__((vector_size(W * sizeof(float))));
typedef int32_t I __attribute__((vector_size(W * sizeof(int32_t))));

constexpr int64_t kBlock = 32;      // T: states of a block, with their factors, stay in the second-level cache
constexpr int64_t kTilesOfUnit = 4;  // tiles that share one partial sum of the gradients of B and C
constexpr float kLog2E = 1.44269504088896341f;

inline V fill(float x) { return V{} + x; }
inline V load(const float* p) { V v; std::memcpy(&v, p, sizeof v); return v; }
inline void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }

// 2^x to about 1 unit in the last place; 2^0 is exactly 1, and near 0 the error shrinks with x, so that it does not
// pile up over thousands of small steps. -inf gives 0, nan stays nan.
#ifdef SCAN_AVX512
inline V exp2v(V x) {
  // 2^x = 2^n · 2^f, n a multiple of 1/16: its fraction by a table in a register, f by a polynomial
  const __m512 table = _mm512_setr_ps(1.0f, 1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f,
                                      1.29683955f, 1.35425555f, 1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f,
                                      1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f);
  const V f = (V)_mm512_reduce_ps((__m512)x, 4 << 4);
  const V n = x - f;
  const __m512i sixteenths = _mm512_castps_si512((__m512)(n + 786432.0f));  // 1.5 · 2^19: the last bit is 1/16
  V p = f * 0.0555050853f + 0.240233552f;
  p = p * f + 0.693147181f;
  p = p * f + 1.0f;
  return (V)_mm512_scalef_ps((__m512)(p * (V)_mm512_permutexvar_ps(sixteenths, table)), (__m512)n);
}
#else
inline V exp2v(V x) {
  x = x < -127.0f ? fill(-127.0f) : x;
  x = x > 128.0f ? fill(128.0f) : x;
  const V shifted = x + 12582912.0f;  // 1.5 · 2^23: the last bit is 1
  const V f = x - (shifted - 12582912.0f);
  V p = f * 0.000154531629f + 0.00133908634f;
  p = p * f + 0.00961808256f;
  p = p * f + 0.0555035711f;
  p = p * f + 0.240226508f;
  p = p * f + 0.693147188f;
  p = p * f + 1.0f;
  return (V)((I)p + ((I)shifted << 23));  // the exponent
}
#endif

inline V sigmoid(V x) { return 1.0f / (1.0f + exp2v(x * -kLog2E)); }

inline V softplus(V x) {
  const V w = exp2v((x > 0.0f ? -x : x) * kLog2E);
  const V s = w / (2.0f + w), q = s * s;  // log(1 + w) = 2 artanh(s), s at most 1/3
  V p = q * 0.26851498f + 0.282366198f;
  p = p * q + 0.400075606f;
  p = p * q + 0.666666403f;
  return (x > 0.0f ? x : V{}) + (s + s + s * q * p);
}

// ---- Transposing W × W values: at step S, rows i and i + S exchange the lanes that differ in that bit.

template <int S, int... L>
inline void exchange(V& a, V& b, std::integer_sequence<int, L...>) {
  const V first = __builtin_shufflevector(a, b, (L & S ? W + (L ^ S) : L)...);
  b = __builtin_shufflevector(a, b, (L & S ? W + L : (L ^ S))...);
  a = first;
}

template <int S = 1>
inline void transpose(V* rows) {
  if constexpr (S < W) {
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i)
      if (!(i & S)) exchange<S>(rows[i], rows[i + S], std::make_integer_sequence<int, W>{});
    transpose<2 * S>(rows);
  }
}

template <int... L>
inline float sum_lanes(V v, std::integer_sequence<int, L...>) {
  return (v[L] + ...);
}

}  // namespace

extern "C" {

// Values at data + batch · b + channel · d + token · t; channel or token is 1.
struct Strided {
  float* data;
  int64_t batch, channel, token;
};

struct Scan {
  int64_t batch, groups, channels, states, length;  // channels of one group
  int64_t threads, softplus;
  Strided u, delta, z, y;              // z.data may be null
  const float *A, *B, *C;              // (G, E, N), (B, G, L, N), (B, G, L, N)
  const float *D, *delta_bias;         // (G, E) or null
  float* starts;                       // states at the start of each block, or null where no gradient is wanted
  float* last;                         // (B, G, E, N)
};

struct ScanGradient {
  Strided y, u, delta, z;              // y comes in, the others go out; z.data may be null
  const float* last;                   // comes in, (B, G, E, N), or null
  float *A, *D, *delta_bias;           // (B, G, E, N), (B, G, E), (B, G, E): to be summed over the batch
  float *B, *C;                        // (units, B, G, L, N): to be summed over the units
};

}  // extern "C"

namespace {

inline int64_t count(int64_t size, int64_t part) { return (size + part - 1) / part; }
inline int64_t tiles_of(const Scan& s) { return count(s.channels, W); }
inline int64_t blocks_of(const Scan& s) { return count(s.length, kBlock); }
inline int64_t units_of(const Scan& s) { return count(tiles_of(s), kTilesOfUnit); }

// W channels of one group in one sample.
struct Tile {
  int64_t batch, row, first, lanes;  // row: sample and group; first: channel among all; lanes that exist

  Tile(const Scan& s, int64_t row_, int64_t tile)
      : batch(row_ / s.groups), row(row_), first(row_ % s.groups * s.channels + tile * W),
        lanes(std::min<int64_t>(W, s.channels - tile * W)) {}
  V vector(const float* p) const {  // one value a channel
    V v{};
    if (p) std::memcpy(&v, p + first, lanes * sizeof(float));
    return v;
  }
  int64_t start(const Scan& s, int64_t tile, int64_t block) const {  // where its states lie in starts
    return ((row * tiles_of(s) + tile) * blocks_of(s) + block) * s.states * W;
  }
};

void read(const Strided& x, const Tile& tile, int64_t t0, int64_t T, V* out) {
  const float* p = x.data + tile.batch * x.batch + tile.first * x.channel + t0 * x.token;
  int64_t t = 0;
  if (tile.lanes == W && x.channel == 1) {
    for (; t < T; ++t) out[t] = load(p + t * x.token);
  } else if (tile.lanes == W && x.token == 1) {
    for (; t + W <= T; t += W) {
      V rows[W];
      for (int i = 0; i < W; ++i) rows[i] = load(p + i * x.channel + t);
      transpose(rows);
      for (int i = 0; i < W; ++i) out[t + i] = rows[i];
    }
  }
  for (; t < T; ++t) {
    V v{};
    for (int64_t lane = 0; lane < tile.lanes; ++lane) v[lane] = p[lane * x.channel + t * x.token];
    out[t] = v;
  }
}

void write(const Strided& x, const Tile& tile, int64_t t0, int64_t T, const V* in) {
  float* p = x.data + tile.batch * x.batch + tile.first * x.channel + t0 * x.token;
  int64_t t = 0;
  if (tile.lanes == W && x.channel == 1) {
    for (; t < T; ++t) store(p + t * x.token, in[t]);
  } else if (tile.lanes == W && x.token == 1) {
    for (; t + W <= T; t += W) {
      V rows[W];
      for (int i = 0; i < W; ++i) rows[i] = in[t + i];
      transpose(rows);
      for (int i = 0; i < W; ++i) store(p + i * x.channel + t, rows[i]);
    }
  }
  for (; t < T; ++t)
    for (int64_t lane = 0; lane < tile.lanes; ++lane) p[lane * x.channel + t * x.token] = in[t][lane];
}

void read_states(const float* p, const Tile& tile, int64_t states, float scale, V* out) {  // (channels, N) → N × W
  p += tile.first * states;
  for (int64_t n = 0; n < states; ++n) {
    out[n] = V{};
    for (int64_t lane = 0; lane < tile.lanes; ++lane) out[n][lane] = p[lane * states + n] * scale;
  }
}

void write_states(float* p, const Tile& tile, int64_t states, const V* in) {
  p += tile.first * states;
  for (int64_t n = 0; n < states; ++n)
    for (int64_t lane = 0; lane < tile.lanes; ++lane) p[lane * states + n] = in[n][lane];
}

// Calls do_states(n, K) with K a constant: so many states at a time stay in registers.
template <typename F>
inline void for_states(int64_t states, F&& do_states) {
  int64_t n = 0;
  for (; n + W <= states; n += W) do_states(n, std::integral_constant<int, W>{});
  for (; n + 4 <= states; n += 4) do_states(n, std::integral_constant<int, 4>{});
  for (; n < states; ++n) do_states(n, std::integral_constant<int, 1>{});
}

// The recurrence for K states of a tile over one block. `rate` is A · log2(e), `input` is delta · u. Adds to `y`.
// Keep: also write factors and states, T × N.
template <bool Keep, int K>
inline void run(const V* rate, V* h, const float* B, const float* C, const V* delta, const V* input, V* y, int64_t T,
                int64_t states, V* factors, V* kept) {
  V state[K];
  for (int k = 0; k < K; ++k) state[k] = h[k];
  for (int64_t t = 0; t < T; ++t) {
    const V step = delta[t], in = input[t];
    V out = y[t];
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) {
      const V factor = exp2v(step * rate[k]);
      state[k] = factor * state[k] + in * B[t * states + k];
      out += state[k] * C[t * states + k];
      if (Keep) {
        factors[t * states + k] = factor;
        kept[t * states + k] = state[k];
      }
    }
    y[t] = out;
  }
  for (int k = 0; k < K; ++k) h[k] = state[k];
}

void scan_tile(const Scan& s, int64_t row, int64_t index) {
  const Tile tile(s, row, index);
  const int64_t N = s.states;
  std::vector<V> rate(N), h(N, V{});
  read_states(s.A, tile, N, kLog2E, rate.data());
  const V skip = tile.vector(s.D), bias = tile.vector(s.delta_bias);
  V u[kBlock], delta[kBlock], z[kBlock], input[kBlock], y[kBlock];
  for (int64_t t0 = 0, block = 0; t0 < s.length; t0 += kBlock, ++block) {
    const int64_t T = std::min(kBlock, s.length - t0);
    if (s.starts) std::memcpy(s.starts + tile.start(s, index, block), h.data(), N * sizeof(V));
    read(s.u, tile, t0, T, u);
    read(s.delta, tile, t0, T, delta);
    for (int64_t t = 0; t < T; ++t) {
      const V raw = delta[t] + bias;
      delta[t] = s.softplus ? softplus(raw) : raw;
      input[t] = delta[t] * u[t];
      y[t] = skip * u[t];
    }
    const float *B = s.B + (tile.row * s.length + t0) * N, *C = s.C + (tile.row * s.length + t0) * N;
    for_states(N, [&](int64_t n, auto k) {
      run<false, k()>(&rate[n], &h[n], B + n, C + n, delta, input, y, T, N, nullptr, nullptr);
    });
    if (s.z.data) {
      read(s.z, tile, t0, T, z);
      for (int64_t t = 0; t < T; ++t) y[t] *= z[t] * sigmoid(z[t]);
    }
    write(s.y, tile, t0, T, y);
  }
  write_states(s.last + tile.batch * s.groups * s.channels * N, tile, N, h.data());
}

// What a unit of tiles needs in the backward pass; per tile N vectors of each of the first four.
struct Workspace {
  std::vector<V> A, rate, later, grad_A;
  std::vector<V> skip, bias;                              // gradients, one a tile
  std::vector<V> h, factors, states, grad_B, grad_C;      // h N; the others T × N
  Workspace(int64_t tiles, int64_t N)
      : A(tiles * N), rate(tiles * N), later(tiles * N, V{}), grad_A(tiles * N, V{}), skip(tiles, V{}),
        bias(tiles, V{}), h(N), factors(kBlock * N), states(kBlock * N), grad_B(kBlock * N), grad_C(kBlock * N) {}
};

// K states of a tile, from the last token of a block to the first; g is the gradient of a state.
template <int K>
inline void run_back(const V* A, V* later, V* grad_A, const V* start, const V* factors, const V* kept, const float* B,
                     const float* C, const V* delta, const V* input, const V* grad_y, V* grad_B, V* grad_C,
                     V* grad_input, V* grad_delta, int64_t T, int64_t states) {
  V g[K];
  for (int k = 0; k < K; ++k) g[k] = later[k];
  for (int64_t t = T - 1; t >= 0; --t) {
    const V gy = grad_y[t], in = input[t], step = delta[t];
    V to_input = grad_input[t], to_delta = grad_delta[t];
    const int64_t at = t * states;
    const V* before = t ? kept + at - states : start;
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) {
      const V here = g[k] + gy * C[at + k];
      grad_C[at + k] += gy * kept[at + k];
      grad_B[at + k] += here * in;
      to_input += here * B[at + k];
      g[k] = here * factors[at + k];
      const V product = g[k] * before[k];  // gradient of delta · A
      to_delta += product * A[k];
      grad_A[k] += product * step;
    }
    grad_input[t] = to_input;
    grad_delta[t] = to_delta;
  }
  for (int k = 0; k < K; ++k) later[k] = g[k];
}

// One block of one tile, whose number among the tiles of its row is `index` and in its unit is `slot`.
void block_back(const Scan& s, const ScanGradient& grad, Workspace& work, int64_t row, int64_t index, int64_t slot,
                int64_t block) {
  const Tile tile(s, row, index);
  const int64_t N = s.states, t0 = block * kBlock, T = std::min(kBlock, s.length - t0);
  const V skip = tile.vector(s.D), bias = tile.vector(s.delta_bias);
  const V* start = reinterpret_cast<const V*>(s.starts + tile.start(s, index, block));
  V u[kBlock], delta[kBlock], slope[kBlock], z[kBlock], input[kBlock], y[kBlock], grad_y[kBlock];
  V grad_u[kBlock], grad_input[kBlock], grad_delta[kBlock];
  read(s.u, tile, t0, T, u);
  read(s.delta, tile, t0, T, delta);
  read(grad.y, tile, t0, T, grad_y);
  for (int64_t t = 0; t < T; ++t) {
    const V raw = delta[t] + bias;
    delta[t] = s.softplus ? softplus(raw) : raw;
    slope[t] = s.softplus ? sigmoid(raw) : fill(1.0f);
    input[t] = delta[t] * u[t];
    y[t] = skip * u[t];
    grad_input[t] = grad_delta[t] = V{};
  }
  const float *B = s.B + (tile.row * s.length + t0) * N, *C = s.C + (tile.row * s.length + t0) * N;
  std::copy(start, start + N, work.h.begin());
  for_states(N, [&](int64_t n, auto k) {
    run<true, k()>(&work.rate[slot * N + n], &work.h[n], B + n, C + n, delta, input, y, T, N, &work.factors[n],
                   &work.states[n]);
  });
  if (s.z.data) {
    read(s.z, tile, t0, T, z);
    for (int64_t t = 0; t < T; ++t) {
      const V gate = sigmoid(z[t]), outer = grad_y[t];
      grad_y[t] = outer * z[t] * gate;
      z[t] = outer * y[t] * gate * (1.0f + z[t] * (1.0f - gate));
    }
    write(grad.z, tile, t0, T, z);
  }
  for_states(N, [&](int64_t n, auto k) {
    run_back<k()>(&work.A[slot * N + n], &work.later[slot * N + n], &work.grad_A[slot * N + n], start + n,
                  &work.factors[n], &work.states[n], B + n, C + n, delta, input, grad_y, &work.grad_B[n],
                  &work.grad_C[n], grad_input, grad_delta, T, N);
  });
  for (int64_t t = 0; t < T; ++t) {
    work.skip[slot] += grad_y[t] * u[t];
    grad_u[t] = grad_y[t] * skip + grad_input[t] * delta[t];
    grad_delta[t] = (grad_delta[t] + grad_input[t] * u[t]) * slope[t];
    work.bias[slot] += grad_delta[t];
  }
  write(grad.u, tile, t0, T, grad_u);
  write(grad.delta, tile, t0, T, grad_delta);
}

void unit_back(const Scan& s, const ScanGradient& grad, int64_t row, int64_t unit) {
  const int64_t N = s.states, first = unit * kTilesOfUnit, all = s.groups * s.channels;
  const int64_t tiles = std::min(kTilesOfUnit, tiles_of(s) - first);
  Workspace work(tiles, N);
  for (int64_t slot = 0; slot < tiles; ++slot) {
    const Tile tile(s, row, first + slot);
    read_states(s.A, tile, N, 1.0f, &work.A[slot * N]);
    read_states(s.A, tile, N, kLog2E, &work.rate[slot * N]);
    if (grad.last) read_states(grad.last + tile.batch * all * N, tile, N, 1.0f, &work.later[slot * N]);
  }
  const int64_t partial = (unit * s.batch * s.groups + row) * s.length * N;
  for (int64_t block = blocks_of(s) - 1; block >= 0; --block) {
    std::fill(work.grad_B.begin(), work.grad_B.end(), V{});
    std::fill(work.grad_C.begin(), work.grad_C.end(), V{});
    for (int64_t slot = 0; slot < tiles; ++slot) block_back(s, grad, work, row, first + slot, slot, block);
    const int64_t t0 = block * kBlock, T = std::min(kBlock, s.length - t0);
    for (int64_t i = 0; i < T * N; ++i) {
      grad.B[partial + t0 * N + i] = sum_lanes(work.grad_B[i], std::make_integer_sequence<int, W>{});
      grad.C[partial + t0 * N + i] = sum_lanes(work.grad_C[i], std::make_integer_sequence<int, W>{});
    }
  }
  for (int64_t slot = 0; slot < tiles; ++slot) {
    const Tile tile(s, row, first + slot);
    write_states(grad.A + tile.batch * all * N, tile, N, &work.grad_A[slot * N]);
    std::memcpy(grad.D + tile.batch * all + tile.first, &work.skip[slot], tile.lanes * sizeof(float));
    std::memcpy(grad.delta_bias + tile.batch * all + tile.first, &work.bias[slot], tile.lanes * sizeof(float));
  }
}

}  // namespace

extern "C" {

// Number of floats in `starts`, and of partial sums of the gradients of B and C.
void scan_sizes(const Scan* s, int64_t* starts, int64_t* units) {
  *starts = s->batch * s->groups * tiles_of(*s) * blocks_of(*s) * s->states * W;
  *units = units_of(*s);
}

void scan_forward(const Scan* scan) {
  const int64_t tiles = tiles_of(*scan), work = scan->batch * scan->groups * tiles;
#pragma omp parallel for schedule(static) num_threads(scan->threads) if (scan->threads > 1)
  for (int64_t i = 0; i < work; ++i) scan_tile(*scan, i / tiles, i % tiles);
}

void scan_backward(const Scan* scan, const ScanGradient* gradient) {
  const int64_t units = units_of(*scan), work = scan->batch * scan->groups * units;
#pragma omp parallel for schedule(static) num_threads(scan->threads) if (scan->threads > 1)
  for (int64_t i = 0; i < work; ++i) unit_back(*scan, *gradient, i / units, i % units);
}

}  // extern "C"
