#include "binding/training_input.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "binding/convert.h"
#include "binding/held_bytes.h"
#include "duckdb/block.h"
#include "kernels/parse_idx.h"
#include "kernels/parse_libsvm.h"
#include "kernels/rows_from_columns.h"
#include "kernels/training_rows.h"

namespace millrace::binding {
namespace {

// Codes of labels with the memory behind them.
struct OwnedCodes {
  bool as_is = true;
  std::vector<double> values;
  std::vector<double> codes;

  LabelCodes get() const { return {as_is, values, codes}; }
};

OwnedCodes to_codes(const Napi::Value& value) {
  OwnedCodes codes;
  if (value.IsNull()) return codes;
  const Napi::Object object = to_object(value, "codes of labels are an object or null");
  codes.as_is = false;
  codes.values = to_numbers<double>(object.Get("values"), napi_float64_array, "values of labels are a Float64Array");
  codes.codes = to_numbers<double>(object.Get("codes"), napi_float64_array, "codes of labels are a Float64Array");
  return codes;
}

TrainingShape to_shape(const Napi::Value& value) {
  const Napi::Object object = to_object(value, "a shape is an object");
  TrainingShape shape;
  shape.first_row = to_uint(object.Get("firstRow"));
  shape.rows = to_uint(object.Get("rows"));
  shape.features = to_uint(object.Get("features"));
  shape.non_zeros = to_uint(object.Get("nonZeros"));
  shape.sparse = to_bool(object.Get("sparse"));
  return shape;
}

LibsvmOptions to_libsvm_options(const Napi::Value& value) {
  const Napi::Object object = to_object(value, "options are an object");
  LibsvmOptions options;
  options.index_begin = to_uint(object.Get("indexBegin"));
  options.index_end = to_uint(object.Get("indexEnd"));
  options.skip_beyond = to_bool(object.Get("skipBeyond"));
  options.label_optional = to_bool(object.Get("labelOptional"));
  if (options.index_end > kLibsvmIndexMax + 1 || options.index_begin > options.index_end) {
    throw bad_argument(value.Env(), "the indices are out of range");
  }
  return options;
}

Napi::Object from_labels(Napi::Env env, const LabelSurvey& survey) {
  Napi::Object object = Napi::Object::New(env);
  const std::vector<double> values = survey.distinct();
  Napi::Float64Array distinct = Napi::Float64Array::New(env, values.size());
  for (size_t i = 0; i < values.size(); ++i) distinct[i] = values[i];
  object.Set("distinct", distinct);
  object.Set("tooMany", survey.too_many());
  object.Set("allWhole", survey.all_whole());
  return object;
}

Napi::Object from_fault(Napi::Env env, const TextFault& fault) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("line", static_cast<double>(fault.line));
  object.Set("column", static_cast<double>(fault.column));
  object.Set("why", fault.why);
  return object;
}

Napi::Value undefined(Napi::Env env) { return env.Undefined(); }

// Lets `fill` write a block where it is to lie, or aside where that place is not aligned.
Status fill_block(std::span<uint8_t> out, const std::function<Status(std::span<uint8_t>)>& fill) {
  if (reinterpret_cast<uintptr_t>(out.data()) % alignof(uint64_t) == 0) return fill(out);
  std::vector<uint64_t> aside((out.size() + sizeof(uint64_t) - 1) / sizeof(uint64_t));
  const Status status = fill({reinterpret_cast<uint8_t*>(aside.data()), out.size()});
  if (status.ok()) std::memcpy(out.data(), aside.data(), out.size());
  return status;
}

// blockBytes(shape)
Napi::Value block_bytes(const Napi::CallbackInfo& info) {
  auto bytes = training_block_bytes(to_shape(info[0]));
  check(info.Env(), bytes.status());
  return Napi::Number::New(info.Env(), static_cast<double>(*bytes));
}

IdxHeader to_header(const Napi::Value& value) {
  const ConstSpan bytes = to_bytes(value);
  auto header = parse_idx_header({bytes.data, bytes.bytes});
  check(value.Env(), header.status());
  return *header;
}

// idxHeader(head)
Napi::Value idx_header(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const IdxHeader header = to_header(info[0]);
  Napi::Object object = Napi::Object::New(env);
  Napi::Array dimensions = Napi::Array::New(env, header.dimensions.size());
  for (size_t i = 0; i < header.dimensions.size(); ++i) {
    dimensions.Set(static_cast<uint32_t>(i), static_cast<double>(header.dimensions[i]));
  }
  object.Set("dimensions", dimensions);
  object.Set("headerBytes", static_cast<double>(header.header_bytes));
  object.Set("valueBytes", static_cast<double>(header.value_bytes));
  object.Set("features", static_cast<double>(header.values_per_item));
  return object;
}

// surveyIdxLabels(head, values)
Napi::Value survey_idx_labels_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const IdxHeader header = to_header(info[0]);
  const std::span<const uint8_t> values = work->hold(info[1], "values", Access::kRead);
  auto survey = std::make_shared<LabelSurvey>();
  return work.release()->start([=] { return survey_idx_labels(header, values, *survey); },
                               [=](Napi::Env env) { return from_labels(env, *survey); });
}

// writeIdxBlock(shape, head, values, labelHead, labels, codes, out)
Napi::Value write_idx_block_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const TrainingShape shape = to_shape(info[0]);
  const IdxHeader header = to_header(info[1]);
  const std::span<const uint8_t> values = work->hold(info[2], "values", Access::kRead);
  std::optional<IdxHeader> label_header;
  if (!info[3].IsNull()) label_header = to_header(info[3]);
  const std::span<const uint8_t> labels = work->hold(info[4], "labels", Access::kRead);
  auto codes = std::make_shared<const OwnedCodes>(to_codes(info[5]));
  const std::span<uint8_t> out = work->hold(info[6], "out", Access::kWrite);
  return work.release()->start(
      [=] {
        const IdxHeader* of_labels = label_header.has_value() ? &*label_header : nullptr;
        return fill_block(out, [&](std::span<uint8_t> block) {
          return write_idx_block(shape, header, values, of_labels, labels, codes->get(), block);
        });
      },
      undefined);
}

// surveyLibsvm(text, options)
Napi::Value survey_libsvm_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const std::span<const uint8_t> text = work->hold(info[0], "text", Access::kRead);
  const LibsvmOptions options = to_libsvm_options(info[1]);
  auto survey = std::make_shared<LibsvmSurvey>();
  return work.release()->start(
      [=] {
        *survey = survey_libsvm(text, options);
        return Status();
      },
      [=](Napi::Env env) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("lines", static_cast<double>(survey->lines));
        object.Set("rows", static_cast<double>(survey->rows));
        object.Set("nonZeros", static_cast<double>(survey->non_zeros));
        const bool any = survey->index_lowest <= survey->index_highest;
        object.Set("indexLowest", any ? Napi::Number::New(env, static_cast<double>(survey->index_lowest)) : env.Null());
        object.Set("indexHighest", any ? Napi::Number::New(env, static_cast<double>(survey->index_highest)) : env.Null());
        object.Set("labels", from_labels(env, survey->labels));
        object.Set("badCount", static_cast<double>(survey->bad_count));
        Napi::Array bad = Napi::Array::New(env, survey->bad.size());
        for (size_t i = 0; i < survey->bad.size(); ++i) bad.Set(static_cast<uint32_t>(i), from_fault(env, survey->bad[i]));
        object.Set("bad", bad);
        object.Set("fault", survey->fault.has_value() ? from_fault(env, *survey->fault) : env.Null());
        return object;
      });
}

// writeLibsvmBlock(text, options, shape, codes, out)
Napi::Value write_libsvm_block_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const std::span<const uint8_t> text = work->hold(info[0], "text", Access::kRead);
  const LibsvmOptions options = to_libsvm_options(info[1]);
  const TrainingShape shape = to_shape(info[2]);
  auto codes = std::make_shared<const OwnedCodes>(to_codes(info[3]));
  const std::span<uint8_t> out = work->hold(info[4], "out", Access::kWrite);
  return work.release()->start(
      [=] {
        return fill_block(out, [&](std::span<uint8_t> block) {
          return write_libsvm_block(text, options, shape, codes->get(), block);
        });
      },
      undefined);
}

// Neighbouring rows of a scan's columns.
struct Stretch {
  std::span<const uint8_t> scan;
  uint64_t first;
  uint64_t count;
  OwnedCodes labels;
  std::vector<std::optional<std::vector<float>>> categories;  // of each feature
};

struct TableCall {
  TrainingShape shape;
  bool has_label;
  std::vector<Stretch> stretches;
};

Status write_stretch(const TableCall& call, const Stretch& stretch, uint64_t row, const TrainingRowsOut& out) {
  const duckdb::ColumnType label_type{duckdb::Shape::kFixed, sizeof(double), duckdb::Rule::kNone, 0, {}};
  const duckdb::ColumnType feature_type{duckdb::Shape::kFixed, sizeof(float), duckdb::Rule::kNone, 0, {}};
  std::vector<duckdb::ColumnType> types(call.has_label ? 1 : 0, label_type);
  types.resize(types.size() + call.shape.features, feature_type);
  std::vector<duckdb::Block> blocks;
  if (Status failed = duckdb::open_blocks(stretch.scan, types, blocks); !failed.ok()) return failed;
  const LabelCodes codes = stretch.labels.get();
  if (Status failed = codes.check(); !failed.ok()) return failed;
  uint64_t begin = 0, done = 0;  // of the block at hand; of the stretch
  for (const duckdb::Block& block : blocks) {
    const uint64_t end = begin + block.rows;
    const uint64_t at = stretch.first + done;
    if (done < stretch.count && at < end) {
      const auto column_of = [](const duckdb::BlockColumn& column) { return NumberColumn{column.data, column.validity, {}, false}; };
      std::optional<NumberColumn> label;
      if (call.has_label) label = column_of(block.columns[0]);
      std::vector<NumberColumn> features;
      for (size_t i = 0; i < call.shape.features; ++i) {
        features.push_back(column_of(block.columns[i + (call.has_label ? 1 : 0)]));
        if (!stretch.categories[i].has_value()) continue;
        features.back().categorical = true;
        features.back().codes = *stretch.categories[i];
      }
      const uint64_t count = std::min(stretch.count - done, end - at);
      if (Status failed = write_rows_from_columns(label.has_value() ? &*label : nullptr, features, at - begin, count, codes,
                                                  call.shape, row + done, out);
          !failed.ok()) {
        return failed;
      }
      done += count;
    }
    begin = end;
  }
  return done == stretch.count ? Status() : Status(Code::kCorrupt, "a scan has fewer rows than it said");
}

// writeTableBlock(shape, hasLabel, stretches, out)
Napi::Value write_table_block(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto work = std::make_unique<HoldingWork>(env);
  auto call = std::make_shared<TableCall>();
  call->shape = to_shape(info[0]);
  call->has_label = to_bool(info[1]);
  if (!info[2].IsArray()) throw bad_argument(env, "stretches are an array");
  const auto stretches = info[2].As<Napi::Array>();
  uint64_t rows = 0;
  for (uint32_t i = 0; i < stretches.Length(); ++i) {
    const Napi::Object object = to_object(stretches.Get(i), "a stretch is an object");
    Stretch stretch;
    stretch.scan = work->hold(object.Get("scan"), "scan", Access::kRead);
    stretch.first = to_uint(object.Get("first"));
    stretch.count = to_uint(object.Get("count"));
    stretch.labels = to_codes(object.Get("labels"));
    if (!object.Get("categories").IsArray()) throw bad_argument(env, "categories are an array");
    const auto categories = object.Get("categories").As<Napi::Array>();
    for (uint32_t k = 0; k < categories.Length(); ++k) {
      const Napi::Value codes = categories.Get(k);
      if (codes.IsNull()) stretch.categories.emplace_back();
      else stretch.categories.emplace_back(to_numbers<float>(codes, napi_float32_array, "categories are Float32Arrays or null"));
    }
    if (stretch.categories.size() != call->shape.features || stretch.count > kTrainingRowsMax) {
      throw bad_argument(env, "a stretch is not of these rows");
    }
    rows += stretch.count;
    call->stretches.push_back(std::move(stretch));
  }
  if (rows != call->shape.rows || call->shape.sparse) throw bad_argument(env, "the stretches are not all rows of the block");
  auto bytes = training_block_bytes(call->shape);
  check(env, bytes.status());
  const std::span<uint8_t> out = work->hold(info[3], "out", Access::kWrite);
  if (out.size() != *bytes) throw bad_argument(env, "out does not have the bytes of the block");
  return work.release()->start(
      [=] {
        return fill_block(out, [&](std::span<uint8_t> block) {
          const TrainingRowsOut parts = begin_training_block(call->shape, block);
          uint64_t row = 0;
          for (const Stretch& stretch : call->stretches) {
            if (Status failed = write_stretch(*call, stretch, row, parts); !failed.ok()) return failed;
            row += stretch.count;
          }
          return Status();
        });
      },
      undefined);
}

}  // namespace

void register_training_input(Napi::Env env, Napi::Object exports) {
  Napi::Object input = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    input.Set(name, Napi::Function::New(env, function, name));
  };
  input.Set("distinctLabelsMax", static_cast<double>(kDistinctLabelsMax));
  input.Set("libsvmIndexMax", static_cast<double>(kLibsvmIndexMax));
  input.Set("idxHeaderBytesMax", static_cast<double>(kIdxHeaderBytesMax));
  add("blockBytes", block_bytes);
  add("idxHeader", idx_header);
  add("surveyIdxLabels", survey_idx_labels_js);
  add("writeIdxBlock", write_idx_block_js);
  add("surveyLibsvm", survey_libsvm_js);
  add("writeLibsvmBlock", write_libsvm_block_js);
  add("writeTableBlock", write_table_block);
  exports.Set("trainingInput", input);
}

}  // namespace millrace::binding
