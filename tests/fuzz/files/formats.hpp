// The formats that the fuzzer of files knows: valid files of each, and their loaders.
#pragma once

#include <functional>
#include <random>
#include <span>
#include <string>
#include <string_view>

#include <chainrule/framework/files/files.hpp>

namespace chainrule::fuzz {

using Random = std::mt19937_64;

// A number from 0 to `below` - 1, the same on every machine.
inline std::uint64_t draw(Random& random, std::uint64_t below) { return random() % below; }

// What changes the bytes of a part that the file then compresses or gives a right checksum.
using Damage = std::function<std::string(std::string)>;

// To add one is to add a line to the table in formats.cpp.
struct Format {
  std::string_view name;
  // Whether checksums cover all numbers: then a file that was changed afterwards has the same numbers or is an Error.
  bool checked;
  // Writes a small valid file; all of its parts that `damage` knows are changed by it.
  void (*make)(const std::string& path, Random& random, const Damage& damage);
  data::Arrays (*load)(const std::string& path);
};

std::span<const Format> formats();

}  // namespace chainrule::fuzz
