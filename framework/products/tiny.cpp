#include <chainrule/framework/products/tiny.hpp>

#include <algorithm>

#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/products/tile.hpp>

#ifdef CHAINRULE_GENERATE_X86
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>

#include <chainrule/framework/products/vectors_x86.hpp>
#endif

namespace chainrule::products {

namespace {

constexpr std::int64_t most_multiplications = 160;  // of vectors: 2 KB of code
constexpr std::int64_t most_offset = 1 << 24;       // elements: offsets are part of the code

}  // namespace

bool Tiny::serves(const Product& p, DType dtype, kernels::X86 set) {
  const std::int64_t lanes = products::lanes(set, dtype == float32);
  return !p.transpose_b && p.alpha == 1 && !p.adds && std::max({p.m, p.n, p.k}) <= most_multiplications * lanes &&
         p.m * p.k * ((p.n + lanes - 1) / lanes) <= most_multiplications &&
         std::max({p.lda, p.ldb, p.ldc}) <= most_offset / std::max({p.m, p.k, std::int64_t{1}});
}

#ifdef CHAINRULE_GENERATE_X86

namespace {

class Generator final : public TinyCode, private VectorsX86 {
 public:
  Generator(const Product& p, bool single, kernels::X86 set) : VectorsX86(set, single), p_(p), tile_(widest_tile()) {
    generate();
    ready(Xbyak::CodeArray::PROTECT_RE);
    run_ = getCode<Run>();
  }

 private:
  // Of C.
  struct Tile {
    std::int64_t rows;
    std::int64_t vectors;
  };

  const Xbyak::Reg64 a_ = rdi;
  const Xbyak::Reg64 b_ = rsi;
  const Xbyak::Reg64 c_ = rdx;

  [[nodiscard]] std::int64_t lanes() const { return static_cast<std::int64_t>(vector_bytes_ / element_); }
  [[nodiscard]] std::int64_t vectors() const { return (p_.n + lanes() - 1) / lanes(); }

  // Its sums, a vector of B each, and an element of A are in registers. Rather many rows than many vectors: B's are
  // read once for all of them.
  [[nodiscard]] Tile widest_tile() const {
    const std::int64_t registers = avx512_ ? 32 : 15;
    const std::int64_t rows = Split::of(p_.m, (registers - 2) / 2).largest();
    return {rows, Split::of(vectors(), (registers - 1) / (rows + 1)).largest()};
  }

  void generate() {
    const std::int64_t over = p_.n % lanes();
    if (over != 0) {
      if (avx512_) {
        mov(eax, (1U << over) - 1);
        kmovw(k1, eax);
      } else {
        vmovups(mask(), ptr[rip + ones_]);
      }
    }
    for (std::int64_t j = 0; j < vectors(); j += tile_.vectors)
      for (std::int64_t i = 0; i < p_.m; i += tile_.rows)
        add_tile(i, j, {std::min(tile_.rows, p_.m - i), std::min(tile_.vectors, vectors() - j)});
    vzeroupper();
    ret();
    if (over == 0 || avx512_) return;
    align(32);
    L(ones_);
    for (std::int64_t i = 0; i < lanes(); ++i) single_ ? dd(i < over ? ~0U : 0) : dq(i < over ? ~std::uint64_t{0} : 0);
  }

  void add_tile(std::int64_t row, std::int64_t vector, Tile tile) {
    const auto sum = [&](std::int64_t i, std::int64_t j) { return vec(static_cast<int>(i * tile.vectors + j)); };
    const auto of_b = [&](std::int64_t j) { return sum(tile.rows, j); };
    const Xmm of_a = of_b(tile.vectors);
    const auto is_masked = [&](std::int64_t j) { return p_.n % lanes() != 0 && vector + j + 1 == vectors(); };
    const auto at = [&](const Xbyak::Reg64& matrix, std::int64_t elements) {
      return matrix + static_cast<std::size_t>(elements) * element_;
    };
    const auto columns = [&](std::int64_t j) { return (vector + j) * lanes(); };
    for (std::int64_t r = 0; r < tile.rows * tile.vectors; ++r) clear(vec(static_cast<int>(r)));
    for (std::int64_t p = 0; p < p_.k; ++p) {
      for (std::int64_t j = 0; j < tile.vectors; ++j) load(of_b(j), ptr[at(b_, p * p_.ldb + columns(j))], is_masked(j));
      for (std::int64_t i = row; i < row + tile.rows; ++i) {
        const Xbyak::RegExp element = at(a_, p_.transpose_a ? p * p_.lda + i : i * p_.lda + p);
        if (avx512_ && tile.vectors == 1) {
          multiply_add(sum(i - row, 0), of_b(0), ptr_b[element]);
          continue;
        }
        broadcast_to(of_a, ptr[element]);
        for (std::int64_t j = 0; j < tile.vectors; ++j) multiply_add(sum(i - row, j), of_b(j), of_a);
      }
    }
    for (std::int64_t i = 0; i < tile.rows; ++i)
      for (std::int64_t j = 0; j < tile.vectors; ++j)
        store(ptr[at(c_, (row + i) * p_.ldc + columns(j))], sum(i, j), is_masked(j));
  }

  Product p_;
  Tile tile_;
  Xbyak::Label ones_;
};

std::shared_ptr<const TinyCode> code_of(const Product& p, bool single, kernels::X86 set) {
  using Key = std::tuple<kernels::X86, bool, bool, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                         std::int64_t>;
  static std::mutex mutex;
  // Never freed: a program may outlive what is static here.
  static auto& known = *new std::map<Key, std::weak_ptr<const TinyCode>>;
  static std::size_t sweep_at = 64;
  const std::lock_guard lock(mutex);
  const Key key{set, single, p.transpose_a, p.m, p.n, p.k, p.lda, p.ldb, p.ldc};
  if (const auto it = known.find(key); it != known.end())
    if (auto found = it->second.lock()) return found;
  std::shared_ptr<const TinyCode> made;
  try {
    made = std::make_shared<const Generator>(p, single, set);
  } catch (const Xbyak::Error& error) {
    throw std::runtime_error(std::string("chainrule: no machine code could be made: ") + error.what());
  }
  if (known.size() >= sweep_at) {
    std::erase_if(known, [](const auto& entry) { return entry.second.expired(); });
    sweep_at = 2 * known.size() + 64;
  }
  known[key] = made;
  return made;
}

}  // namespace

Tiny::Tiny(const Product& product, DType dtype, kernels::X86 set)
    : code_(code_of(product, dtype == float32, set)), run_(code_->run()) {}

#else

Tiny::Tiny(const Product&, DType, kernels::X86) : run_(nullptr) {
  invariant(false, "machine code cannot be generated here");
}

#endif

}  // namespace chainrule::products
