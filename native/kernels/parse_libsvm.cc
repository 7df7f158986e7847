#include "kernels/parse_libsvm.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

namespace millrace {
namespace {

bool blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f'; }

enum class Parsed { kNumber, kNotFinite, kNone };

// A number that is all of the text.
Parsed parse_number(const char* begin, const char* end, double& value) {
  if (begin != end && *begin == '+') ++begin;
  if (begin == end || *begin == '+') return Parsed::kNone;
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (stop != end || error == std::errc::invalid_argument) return Parsed::kNone;
  if (error == std::errc::result_out_of_range) {
    // Too small for a double is 0, too large is none.
    for (const char* at = begin; at + 1 < end; ++at) {
      if ((*at == 'e' || *at == 'E') && at[1] == '-') {
        value = 0;
        return Parsed::kNumber;
      }
    }
    return Parsed::kNotFinite;
  }
  return std::isfinite(value) ? Parsed::kNumber : Parsed::kNotFinite;
}

// What a line turned out to be.
enum class Line { kNothing, kRow, kBad, kFault };

// Reads one line after another.
class Reader {
 public:
  Reader(std::span<const uint8_t> text, const LibsvmOptions& options)
      : at_(reinterpret_cast<const char*>(text.data())), end_(at_ + text.size()), options_(options) {}

  bool more() const { return at_ != end_; }
  uint64_t lines() const { return lines_; }

  // The next line. What of it is a row is in `label`, `columns` and `values` until the next.
  Line next() {
    columns.clear();
    values.clear();
    ++lines_;
    begin_ = at_;
    const void* found = std::memchr(at_, '\n', static_cast<size_t>(end_ - at_));
    const char* stop = found == nullptr ? end_ : static_cast<const char*>(found);
    at_ = found == nullptr ? end_ : stop + 1;
    if (const void* comment = std::memchr(begin_, '#', static_cast<size_t>(stop - begin_))) {
      stop = static_cast<const char*>(comment);
    }
    return read(begin_, stop);
  }

  double label = 0;
  std::vector<uint32_t> columns;
  std::vector<float> values;
  TextFault fault;  // of a bad line or a fault

 private:
  Line fail(Line how, const char* at, std::string why) {
    fault = {lines_, static_cast<uint64_t>(at - begin_) + 1, std::move(why)};
    return how;
  }

  static const char* token_end(const char* at, const char* stop) {
    while (at != stop && !blank(*at)) ++at;
    return at;
  }
  static const char* skip_blanks(const char* at, const char* stop) {
    while (at != stop && blank(*at)) ++at;
    return at;
  }

  Line read(const char* at, const char* stop) {
    at = skip_blanks(at, stop);
    if (at == stop) return Line::kNothing;
    const char* token = token_end(at, stop);
    const bool has_label = std::memchr(at, ':', static_cast<size_t>(token - at)) == nullptr;
    label = std::numeric_limits<double>::quiet_NaN();
    if (has_label) {
      const Parsed parsed = parse_number(at, token, label);
      if (parsed != Parsed::kNumber) {
        if (!options_.label_optional) {
          return fail(Line::kBad, at, parsed == Parsed::kNone ? "the label is not a number" : "the label is not finite");
        }
        label = std::numeric_limits<double>::quiet_NaN();
      }
      at = skip_blanks(token, stop);
    } else if (!options_.label_optional) {
      return fail(Line::kBad, at, "the label is missing");
    }
    if (stop - at >= 4 && std::memcmp(at, "qid:", 4) == 0) at = skip_blanks(token_end(at, stop), stop);
    uint64_t before = 0;
    for (bool first = true; at != stop; first = false) {
      token = token_end(at, stop);
      uint64_t index;
      const auto [colon, error] = std::from_chars(at, token, index);
      if (error == std::errc::invalid_argument) return fail(Line::kFault, at, "an index:value is wanted here");
      if (colon == token || *colon != ':') return fail(Line::kFault, colon, "a colon is wanted behind the index");
      if (!first && index <= before && error == std::errc()) {
        return fail(Line::kFault, at, "index " + std::to_string(index) + " comes behind " + std::to_string(before) +
                                          ": indices must ascend");
      }
      if (index < options_.index_begin && error == std::errc()) {
        return fail(Line::kFault, at, "index " + std::to_string(index) + " is below " +
                                          std::to_string(options_.index_begin) + ", where the indices begin");
      }
      double value;
      const Parsed parsed = parse_number(colon + 1, token, value);
      if (parsed == Parsed::kNone) return fail(Line::kFault, colon + 1, "the value is not a number");
      if (parsed == Parsed::kNotFinite || std::abs(value) > std::numeric_limits<float>::max()) {
        return fail(Line::kBad, colon + 1, "the value is not finite");
      }
      if (error != std::errc() || index >= options_.index_end) {
        if (!options_.skip_beyond) {
          return fail(Line::kFault, at, "an index is above " + std::to_string(options_.index_end - 1) +
                                            ", the highest that is possible");
        }
        index = error == std::errc() ? index : UINT64_MAX;
      } else {
        columns.push_back(static_cast<uint32_t>(index - options_.index_begin));
        values.push_back(static_cast<float>(value));
      }
      before = index;
      at = skip_blanks(token, stop);
    }
    return Line::kRow;
  }

  const char* at_;
  const char* const end_;
  const LibsvmOptions& options_;
  const char* begin_ = nullptr;  // of the line at hand
  uint64_t lines_ = 0;
};

}  // namespace

LibsvmSurvey survey_libsvm(std::span<const uint8_t> text, const LibsvmOptions& options) {
  LibsvmSurvey survey;
  Reader reader(text, options);
  while (reader.more() && !survey.fault.has_value()) {
    switch (reader.next()) {
      case Line::kNothing:
        break;
      case Line::kRow:
        ++survey.rows;
        survey.non_zeros += reader.columns.size();
        if (!std::isnan(reader.label)) survey.labels.add(reader.label);
        if (!reader.columns.empty()) {
          survey.index_lowest = std::min(survey.index_lowest, reader.columns.front() + options.index_begin);
          survey.index_highest = std::max(survey.index_highest, reader.columns.back() + options.index_begin);
        }
        break;
      case Line::kBad:
        ++survey.bad_count;
        if (survey.bad.size() < kBadRowsNamed) survey.bad.push_back(reader.fault);
        break;
      case Line::kFault:
        survey.fault = reader.fault;
        break;
    }
  }
  survey.lines = reader.lines();
  return survey;
}

Status write_libsvm_block(std::span<const uint8_t> text, const LibsvmOptions& options, const TrainingShape& shape,
                          const LabelCodes& codes, std::span<uint8_t> block) {
  auto bytes = training_block_bytes(shape);
  if (!bytes.ok()) return bytes.status();
  if (!shape.sparse || block.size() != *bytes || shape.features > options.index_end - options.index_begin) {
    return Status(Code::kInvalidArgument, "the block is not one of these rows");
  }
  if (Status failed = codes.check(); !failed.ok()) return failed;
  const auto another = [] { return Status(Code::kAborted, "the file has changed while it was being read"); };
  const TrainingRowsOut out = begin_training_block(shape, block);
  uint64_t row = 0, at = 0;
  Reader reader(text, options);
  while (reader.more()) {
    const Line line = reader.next();
    if (line == Line::kFault) return another();
    if (line != Line::kRow) continue;
    if (row == shape.rows || reader.columns.size() > shape.non_zeros - at) return another();
    if (!reader.columns.empty() && reader.columns.back() >= shape.features) return another();
    auto label = std::isnan(reader.label) ? Result<double>(reader.label) : codes.code_of(reader.label);
    if (!label.ok()) return another();
    out.labels[row] = *label;
    std::copy(reader.columns.begin(), reader.columns.end(), out.columns + at);
    std::copy(reader.values.begin(), reader.values.end(), out.values + at);
    at += reader.columns.size();
    out.row_ends[row++] = at;
  }
  return row == shape.rows && at == shape.non_zeros ? Status() : another();
}

}  // namespace millrace
