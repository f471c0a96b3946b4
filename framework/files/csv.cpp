#include <csv.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <memory>
#include <new>
#include <string_view>

#include <fmt/core.h>

#include <chainrule/framework/files/files.hpp>
#include <chainrule/framework/files/gzip.hpp>
#include <chainrule/framework/io/file.hpp>

namespace chainrule::data {

namespace {

using detail::File;

// Whether the whole field is a number, as C++ and NumPy write them ("-1.5e3", "nan", "inf"); a leading + is allowed.
std::from_chars_result parse_start(std::string_view& field, double& number) {
  if (field.starts_with('+') && !field.starts_with("+-")) field.remove_prefix(1);
  return std::from_chars(field.data(), field.data() + field.size(), number);
}
bool parse(std::string_view field, double& number) {
  const auto [stop, error] = parse_start(field, number);
  return error == std::errc() && stop == field.data() + field.size();
}

// What a field of the first row may say of it.
enum class Field : std::uint8_t { number, mark, name };

Field kind_of(std::string_view text) {
  double number = 0;
  std::string_view field = text;
  const auto [stop, error] = parse_start(field, number);
  // One beyond float64 is a number as well.
  if (error != std::errc::invalid_argument && stop == field.data() + field.size()) return Field::number;
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const std::string_view mark : {"", "na", "n/a", "#n/a", "null", "none", "nil", "?", "-", "--", "."})
    if (lower == mark) return Field::mark;
  return Field::name;
}

// Takes libcsv's fields and rows. Its callbacks are called from C, so they throw nothing; the first error is kept.
class Table {
 public:
  Table(const File& file, const CsvOptions& options) : file_(file), options_(options) {}

  static void field(void* text, std::size_t length, void* table) {
    static_cast<Table*>(table)->add_field({static_cast<const char*>(text), length});
  }
  static void row(int /*ending*/, void* table) {
    static_cast<Table*>(table)->guarded([&] { static_cast<Table*>(table)->end_row(); });
  }

  Csv finish() {
    if (no_memory_) throw std::bad_alloc();
    if (!error_.empty()) file_.fail(error_);
    if (width_ == 0) file_.fail("no number");
    // A text of any kind could be a header, so only the caller can say that there are no rows.
    if (rows_ == 1 && !header_.empty() && !options_.header)
      file_.fail(fmt::format("no number, only one row that begins with \"{}\"", detail::printable(header_.front())));
    Csv out;
    out.columns = std::move(header_);
    out.values =
        Array(float64, {static_cast<std::int64_t>(numbers_.size() / width_), static_cast<std::int64_t>(width_)});
    std::copy(numbers_.begin(), numbers_.end(), out.values.data<double>());
    return out;
  }
  // Whether what follows is of no interest.
  [[nodiscard]] bool failed() const { return no_memory_ || !error_.empty(); }
  void fail(std::string error) {
    if (error_.empty()) error_ = std::move(error);
  }
  [[nodiscard]] std::size_t rows() const { return rows_; }

 private:
  void add_field(std::string_view text) {
    if (failed()) return;
    guarded([&] { fields_.emplace_back(text); });
  }

  // From C, even the want of memory is only noted.
  template <class F>
  void guarded(F f) {
    try {
      f();
    } catch (const std::bad_alloc&) {
      no_memory_ = true;
    }
  }

  void end_row() {
    if (failed()) return;
    ++rows_;
    if (rows_ == 1) {
      width_ = fields_.size();
      if (options_.header.value_or(names_columns())) {
        header_ = std::move(fields_);
        fields_.clear();
        return;
      }
    }
    if (fields_.size() != width_) {
      error_ = fmt::format("row {} has {} fields, where the first has {}", rows_, fields_.size(), width_);
      return;
    }
    for (std::size_t column = 0; column < width_; ++column) {
      double number = 0;
      const std::string& text = fields_[column];
      if (text.empty() && options_.missing) {
        number = *options_.missing;
      } else if (!parse(text, number)) {
        error_ =
            fmt::format("row {}, column {}: \"{}\" is no float64 number", rows_, column + 1, detail::printable(text));
        return;
      }
      numbers_.push_back(number);
    }
    fields_.clear();
  }

  [[nodiscard]] bool names_columns() const {
    bool named = false;
    for (const std::string& field : fields_) {
      const Field kind = kind_of(field);
      if (kind == Field::number) return false;
      named = named || kind == Field::name;
    }
    return named;
  }

  const File& file_;
  const CsvOptions& options_;
  std::vector<std::string> fields_;
  std::vector<std::string> header_;
  std::vector<double> numbers_;
  std::size_t width_ = 0;
  std::size_t rows_ = 0;
  std::string error_;
  bool no_memory_ = false;
};

// Reads a whole table, piece by piece.
Csv read(const File& file, const CsvOptions& options) {
  detail::GzipInput input(file);
  const char delimiter = options.delimiter;
  csv_parser parser;
  if (csv_init(&parser, CSV_STRICT | CSV_STRICT_FINI) != 0) throw std::bad_alloc();
  const std::unique_ptr<csv_parser, void (*)(csv_parser*)> free(&parser, &csv_free);
  csv_set_delim(&parser, static_cast<unsigned char>(delimiter));
  if (delimiter == ' ' || delimiter == '\t')  // the other of the two may still stand around fields
    csv_set_space_func(
        &parser, delimiter == ' ' ? [](unsigned char c) -> int { return c == '\t'; } : [](unsigned char c) -> int {
          return c == ' ';
        });
  Table table(file, options);
  const auto failed = [&] {
    table.fail(fmt::format("row {}: {}", table.rows() + 1,
                           csv_error(&parser) == CSV_EPARSE ? "a quote that is misplaced or not closed"
                                                            : csv_strerror(csv_error(&parser))));
  };
  constexpr std::size_t piece = std::size_t{1} << 16;
  bool first = true;
  for (std::string bytes = input.read(piece); !bytes.empty() && !table.failed(); bytes = input.read(piece)) {
    std::string_view text = bytes;
    if (first && text.starts_with("\xef\xbb\xbf"))
      text.remove_prefix(3);  // a byte order mark, as spreadsheets write it
    first = false;
    if (text.find('\0') != std::string_view::npos)
      table.fail(fmt::format("row {}: a zero byte, so it is no text", table.rows() + 1));
    if (csv_parse(&parser, text.data(), text.size(), &Table::field, &Table::row, &table) != text.size()) failed();
  }
  if (!table.failed() && csv_fini(&parser, &Table::field, &Table::row, &table) != 0) failed();
  return table.finish();
}

}  // namespace

Csv load_csv(const std::string& path, const CsvOptions& options, Location at) {
  const File file{"load_csv", "a table of numbers (CSV)", path, at};
  const char delimiter = options.delimiter;
  if (delimiter == '"' || delimiter == '\n' || delimiter == '\r' || delimiter == '\0')
    throw Error(at, "load_csv",
                fmt::format("requires a delimiter that is no quote and ends no line, got \"{}\"",
                            detail::printable({&delimiter, 1})));
  return file.guard([&] { return read(file, options); });
}

}  // namespace chainrule::data
