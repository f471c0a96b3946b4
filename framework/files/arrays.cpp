#include <fmt/core.h>

#include <chainrule/framework/files/files.hpp>

namespace chainrule::data {

const Array& Arrays::at(const std::string& name, Location at) const {
  if (const auto found = find(name); found != end()) return found->second;
  if (const auto reason = skipped.find(name); reason != skipped.end())
    throw Error(at, "arrays",
                fmt::format("requires the name of an array, got '{}', which is none: {}", name, reason->second));
  std::string names;
  for (const auto& [other, array] : *this) names += fmt::format("{}'{}'", names.empty() ? "" : ", ", other);
  throw Error(at, "arrays",
              fmt::format("requires the name of an array, got '{}', where there {}", name,
                          names.empty() ? "is none at all" : "are " + names));
}

Array& Arrays::at(const std::string& name, Location at) {
  return const_cast<Array&>(static_cast<const Arrays&>(*this).at(name, at));
}

}  // namespace chainrule::data
