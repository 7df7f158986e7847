// Files of training data to rows: IDX, libsvm, columns of a database.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/labels.h"
#include "kernels/parse_idx.h"
#include "kernels/parse_libsvm.h"
#include "kernels/rows_from_columns.h"
#include "kernels_support.h"

namespace millrace {
namespace {

std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Memory for a block of a shape, in exactly its size.
struct Room {
  explicit Room(const TrainingShape& shape) : bytes(*training_block_bytes(shape)), memory(bytes / 8) {}
  std::span<uint8_t> span() { return {reinterpret_cast<uint8_t*>(memory.data()), bytes}; }
  TrainingRows open() { return *open_training_block(span()); }

  uint64_t bytes;
  std::vector<uint64_t> memory;
};

std::vector<uint8_t> idx(std::vector<uint32_t> dimensions, std::vector<uint8_t> values, uint8_t type = 8) {
  std::vector<uint8_t> file{0, 0, type, static_cast<uint8_t>(dimensions.size())};
  for (uint32_t size : dimensions) {
    for (int shift = 24; shift >= 0; shift -= 8) file.push_back(static_cast<uint8_t>(size >> shift));
  }
  file.insert(file.end(), values.begin(), values.end());
  return file;
}

TEST(Labels, AreSurveyedAndCoded) {
  LabelSurvey survey;
  for (double label : {3.0, -1.0, 3.0, 0.0, -0.0}) survey.add(label);
  EXPECT_EQ(survey.distinct(), (std::vector<double>{-1, 0, 3}));
  EXPECT_TRUE(survey.all_whole());
  survey.add(0.5);
  EXPECT_FALSE(survey.all_whole());
  for (uint64_t i = 0; i < kDistinctLabelsMax - 4; ++i) survey.add(1000.0 + static_cast<double>(i));
  EXPECT_FALSE(survey.too_many());
  survey.add(-7);
  EXPECT_TRUE(survey.too_many());
  EXPECT_TRUE(survey.distinct().empty());

  const std::vector<double> values{-1, 2}, codes{0, std::nan("")};
  const LabelCodes coded{false, values, codes};
  ASSERT_TRUE(coded.check().ok());
  EXPECT_EQ(*coded.code_of(-1), 0);
  EXPECT_TRUE(std::isnan(*coded.code_of(2)));
  EXPECT_EQ(coded.code_of(1).code(), Code::kNotFound);
  const std::vector<double> wrong{2, -1};
  EXPECT_EQ((LabelCodes{false, wrong, codes}.check().code()), Code::kInvalidArgument);
}

TEST(Idx, ReadsHeadersOfEveryType) {
  auto header = parse_idx_header(idx({5, 2, 3}, {}));
  ASSERT_TRUE(header.ok());
  EXPECT_EQ(header->items(), 5u);
  EXPECT_EQ(header->values_per_item, 6u);
  EXPECT_EQ(header->header_bytes, 16u);
  EXPECT_EQ(header->value_bytes, 1u);
  EXPECT_EQ(parse_idx_header(idx({5}, {}, 0x0b))->value_bytes, 2u);
  EXPECT_EQ(parse_idx_header(idx({5}, {}, 0x0c))->value_bytes, 4u);
  EXPECT_EQ(parse_idx_header(idx({5}, {}, 0x0d)).code(), Code::kUnsupported);
  EXPECT_EQ(parse_idx_header(idx({5}, {}, 0x07)).code(), Code::kCorrupt);
  EXPECT_EQ(parse_idx_header(idx({}, {})).code(), Code::kCorrupt);
  EXPECT_EQ(parse_idx_header(idx({1, 1, 1, 1, 1, 1, 1, 1, 1}, {})).code(), Code::kCorrupt);
  EXPECT_EQ(parse_idx_header(idx({5, 0}, {})).code(), Code::kCorrupt);
  EXPECT_EQ(parse_idx_header(idx({5, 0xffffffff, 0xffffffff, 0xffffffff}, {})).code(), Code::kCorrupt);
  const auto whole = idx({5, 2, 3}, {});
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::vector<uint8_t> part(whole.begin(), whole.begin() + static_cast<long>(size));
    EXPECT_EQ(parse_idx_header(part).code(), Code::kCorrupt) << size;
  }
}

TEST(Idx, MakesRows) {
  const IdxHeader bytes = *parse_idx_header(idx({2, 3}, {})), labels = *parse_idx_header(idx({2}, {}));
  const std::vector<uint8_t> values{0, 1, 255, 7, 8, 9}, classes{4, 9};
  const std::vector<double> known{4, 9}, codes{0, 1};
  const TrainingShape shape{10, 2, 3, 0, false};
  Room room(shape);
  ASSERT_TRUE(write_idx_block(shape, bytes, values, &labels, classes, {false, known, codes}, room.span()).ok());
  TrainingRows rows = room.open();
  EXPECT_EQ(rows.shape.first_row, 10u);
  EXPECT_EQ(std::vector<float>(rows.values, rows.values + 6), (std::vector<float>{0, 1, 255, 7, 8, 9}));
  EXPECT_EQ(rows.labels[0], 0);
  EXPECT_EQ(rows.labels[1], 1);
  // Without labels, with strange ones, with too few of anything.
  ASSERT_TRUE(write_idx_block(shape, bytes, values, nullptr, {}, {}, room.span()).ok());
  EXPECT_TRUE(std::isnan(rows.labels[0]));
  const std::vector<uint8_t> strange{4, 5};
  EXPECT_EQ(write_idx_block(shape, bytes, values, &labels, strange, {false, known, codes}, room.span()).code(),
            Code::kNotFound);
  EXPECT_EQ(write_idx_block(shape, bytes, std::span(values).first(5), &labels, classes, {}, room.span()).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(write_idx_block(shape, bytes, values, &labels, std::span(classes).first(1), {}, room.span()).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(write_idx_block(shape, bytes, values, &labels, classes, {}, room.span().first(room.bytes - 64)).code(),
            Code::kInvalidArgument);
  // Signed and wider values.
  const TrainingShape one{0, 1, 2, 0, false};
  Room wide(one);
  const std::vector<uint8_t> negative{0xff, 0xfe, 0x01, 0x00};
  ASSERT_TRUE(
      write_idx_block(one, *parse_idx_header(idx({1, 2}, {}, 0x0b)), negative, nullptr, {}, {}, wide.span()).ok());
  EXPECT_EQ(wide.open().values[0], -2);
  EXPECT_EQ(wide.open().values[1], 256);
}

TEST(Libsvm, SurveysRows) {
  const LibsvmSurvey survey = survey_libsvm(
      bytes_of("# all\n+1 1:.5 3:-2e0 # c\n\n-1 qid:3 2:1.\r\n0\n\t 2 7:1e-400\nx 1:1\n1 2:inf\n1:2 3:4\n1 4:1e39"), {});
  EXPECT_FALSE(survey.fault.has_value());
  EXPECT_EQ(survey.lines, 10u);
  EXPECT_EQ(survey.rows, 4u);
  EXPECT_EQ(survey.non_zeros, 4u);
  EXPECT_EQ(survey.index_lowest, 1u);
  EXPECT_EQ(survey.index_highest, 7u);
  EXPECT_EQ(survey.labels.distinct(), (std::vector<double>{-1, 0, 1, 2}));
  ASSERT_EQ(survey.bad_count, 4u);
  const uint64_t places[][2] = {{7, 1}, {8, 5}, {9, 1}, {10, 5}};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(survey.bad[i].line, places[i][0]);
    EXPECT_EQ(survey.bad[i].column, places[i][1]);
  }
}

TEST(Libsvm, NamesWhereItIsNone) {
  const struct {
    const char* text;
    uint64_t line, column;
  } cases[] = {
      {"1 1:1\n1 2:1 2:2\n", 2, 7},   {"1 x:1\n", 1, 3},       {"1 1:\n", 1, 5},         {"1 1:x\n", 1, 5},
      {"1 1:1:1\n", 1, 5},            {"1 1\n", 1, 4},         {"1 -1:1\n", 1, 3},       {"1 1:1 0:1\n", 1, 7},
      {"1 16777217:1\n", 1, 3},       {"1 1:++1\n", 1, 5},     {"1 1:0x10\n", 1, 5},     {"1 99999999999999999999:1\n", 1, 3},
  };
  for (const auto& each : cases) {
    const LibsvmSurvey survey = survey_libsvm(bytes_of(each.text), {});
    ASSERT_TRUE(survey.fault.has_value()) << each.text;
    EXPECT_EQ(survey.fault->line, each.line) << each.text;
    EXPECT_EQ(survey.fault->column, each.column) << each.text << survey.fault->why;
  }
  const LibsvmSurvey below = survey_libsvm(bytes_of("1 0:1\n"), {1, 5, true, false});
  ASSERT_TRUE(below.fault.has_value());
}

TEST(Libsvm, MakesBlocksAndKnowsWhenTheTextIsAnother) {
  const std::string_view text = "5 1:1 2:2 9:9\nx 1:1\n7\n1:4\n";
  const LibsvmOptions options{1, 4, true, true};
  const LibsvmSurvey survey = survey_libsvm(bytes_of(text), options);
  ASSERT_EQ(survey.rows, 4u);
  ASSERT_EQ(survey.non_zeros, 4u);
  const TrainingShape shape{3, survey.rows, 3, survey.non_zeros, true};
  Room room(shape);
  ASSERT_TRUE(write_libsvm_block(bytes_of(text), options, shape, {}, room.span()).ok());
  const TrainingRows rows = room.open();
  EXPECT_EQ(std::vector<uint64_t>(rows.row_ends, rows.row_ends + 4), (std::vector<uint64_t>{2, 3, 3, 4}));
  EXPECT_EQ(std::vector<uint32_t>(rows.columns, rows.columns + 4), (std::vector<uint32_t>{0, 1, 0, 0}));
  EXPECT_EQ(std::vector<float>(rows.values, rows.values + 4), (std::vector<float>{1, 2, 1, 4}));
  EXPECT_EQ(rows.labels[0], 5);
  EXPECT_TRUE(std::isnan(rows.labels[1]));
  EXPECT_TRUE(std::isnan(rows.labels[3]));
  for (const char* another : {"5 1:1 2:2\n", "5 1:1 2:2 3:3\n6 1:1\n7\n1:4\n", "5 1:1 2:2\n6\n7\n1:4\n", "5 1:1 2:2\n6 1\n7\n1:4\n",
                              "5 1:1 2:2 9:9\nx 1:1\n7\n1:4\n7\n"}) {
    EXPECT_EQ(write_libsvm_block(bytes_of(another), options, shape, {}, room.span()).code(), Code::kAborted) << another;
  }
  TrainingShape narrow = shape;
  narrow.features = 1;
  EXPECT_EQ(write_libsvm_block(bytes_of(text), options, narrow, {}, room.span()).code(), Code::kAborted);
  narrow.features = 4;
  EXPECT_EQ(write_libsvm_block(bytes_of(text), options, narrow, {}, room.span()).code(), Code::kInvalidArgument);
}

class LibsvmText : public test::SeededTest {};

TEST_F(LibsvmText, ReadsBackWhatWasWritten) {
  for (int round = 0; round < 200; ++round) {
    std::string text;
    std::vector<double> labels;
    std::vector<uint64_t> ends;
    std::vector<uint32_t> columns;
    std::vector<float> values;
    const uint64_t count = below(20);
    for (uint64_t row = 0; row < count; ++row) {
      labels.push_back(static_cast<double>(static_cast<int64_t>(below(7)) - 3));
      text += std::to_string(static_cast<int>(labels.back()));
      for (uint64_t column = below(4); column < 50; column += 1 + below(30)) {
        float value;
        do {
          const uint32_t bits = static_cast<uint32_t>(random_());
          std::memcpy(&value, &bits, sizeof(value));
        } while (!std::isfinite(value));
        char number[64];
        std::snprintf(number, sizeof(number), "%.9g", static_cast<double>(value));
        text += std::string(1 + below(3), ' ') + std::to_string(column) + ":" + number;
        columns.push_back(static_cast<uint32_t>(column));
        values.push_back(value);
      }
      ends.push_back(columns.size());
      text += below(2) == 0 ? "\n" : " # note 1:2\r\n";
      if (below(4) == 0) text += "\n";
    }
    const LibsvmSurvey survey = survey_libsvm(bytes_of(text), {});
    ASSERT_FALSE(survey.fault.has_value()) << survey.fault->why << text;
    ASSERT_EQ(survey.rows, count);
    ASSERT_EQ(survey.non_zeros, columns.size());
    const TrainingShape shape{0, count, 50, columns.size(), true};
    Room room(shape);
    ASSERT_TRUE(write_libsvm_block(bytes_of(text), {}, shape, {}, room.span()).ok());
    const TrainingRows rows = room.open();
    EXPECT_TRUE(std::equal(labels.begin(), labels.end(), rows.labels));
    EXPECT_TRUE(std::equal(ends.begin(), ends.end(), rows.row_ends));
    EXPECT_TRUE(std::equal(columns.begin(), columns.end(), rows.columns));
    EXPECT_TRUE(std::equal(values.begin(), values.end(), rows.values));
  }
}

TEST(Columns, BecomeRows) {
  constexpr uint64_t kRows = 1500;
  std::vector<float> numbers(kRows), kinds(kRows);
  std::vector<double> labels(kRows);
  std::vector<uint8_t> validity((kRows + 7) / 8, 0xff);
  for (uint64_t i = 0; i < kRows; ++i) {
    numbers[i] = static_cast<float>(i);
    kinds[i] = static_cast<float>(i % 3);
    labels[i] = static_cast<double>(i % 2);
    if (i % 5 == 0) validity[i / 8] &= static_cast<uint8_t>(~(1 << i % 8));
  }
  const auto bytes = [](const auto& values) { return reinterpret_cast<const uint8_t*>(values.data()); };
  const std::vector<float> codes{2, std::nanf(""), 0};
  const NumberColumn label{bytes(labels), nullptr, {}, false};
  const std::vector<NumberColumn> features{{bytes(numbers), validity.data(), {}, false}, {bytes(kinds), nullptr, codes, true}};
  const TrainingShape shape{0, kRows - 100, 2, 0, false};
  Room room(shape);
  const TrainingRowsOut out = begin_training_block(shape, room.span());
  const std::vector<double> known{0, 1}, classes{1, 0};
  const LabelCodes coded{false, known, classes};
  // In two parts, the second without a label.
  ASSERT_TRUE(write_rows_from_columns(&label, features, 50, 700, coded, shape, 0, out).ok());
  ASSERT_TRUE(write_rows_from_columns(nullptr, features, 750, 700, coded, shape, 700, out).ok());
  const TrainingRows rows = room.open();
  for (uint64_t i = 0; i < kRows - 100; ++i) {
    const uint64_t from = i + 50;
    if (from % 5 == 0) EXPECT_TRUE(std::isnan(rows.values[2 * i]));
    else EXPECT_EQ(rows.values[2 * i], static_cast<float>(from));
    if (from % 3 == 1) EXPECT_TRUE(std::isnan(rows.values[2 * i + 1]));
    else EXPECT_EQ(rows.values[2 * i + 1], codes[from % 3]);
    if (i < 700) EXPECT_EQ(rows.labels[i], from % 2 == 0 ? 1 : 0);
    else EXPECT_TRUE(std::isnan(rows.labels[i]));
  }
  for (float strange : {3.0f, -1.0f, 0.5f, std::numeric_limits<float>::infinity(), std::nanf("")}) {
    kinds[60] = strange;
    EXPECT_EQ(write_rows_from_columns(&label, features, 50, 700, coded, shape, 0, out).code(), Code::kCorrupt);
  }
  kinds[60] = 0;
  labels[60] = 2;
  EXPECT_EQ(write_rows_from_columns(&label, features, 50, 700, coded, shape, 0, out).code(), Code::kNotFound);
}

}  // namespace
}  // namespace millrace
