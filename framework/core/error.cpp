#include <chainrule/framework/core/error.hpp>
#include <fmt/core.h>

namespace chainrule {

std::string Location::to_string() const {
  if (!known()) return "";
  const std::string_view path(file);
  const auto slash = path.find_last_of('/');
  return fmt::format("{}:{}", slash == std::string_view::npos ? path : path.substr(slash + 1), line);
}

namespace {

std::string compose(Location at, std::string_view op, std::string_view message) {
  // The full path here, so that a terminal or an editor can jump to it.
  const std::string where = at.known() ? fmt::format("{}:{}: ", at.file, at.line) : "";
  return op.empty() ? fmt::format("{}{}", where, message) : fmt::format("{}{}: {}", where, op, message);
}

}  // namespace

Error::Error(Location at, std::string_view op, std::string_view message)
    : std::runtime_error(compose(at, op, message)), at_(at) {}

InternalError::InternalError(std::string_view message, Location at)
    : std::logic_error(fmt::format("chainrule internal error ({}:{}): {}", at.file, at.line, message)) {}

}  // namespace chainrule
