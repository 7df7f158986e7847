#include "binding/forest.h"

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "binding/convert.h"
#include "binding/held_bytes.h"
#include "kernels/forest.h"
#include "kernels/forest_bins.h"
#include "kernels/forest_finish.h"
#include "kernels/forest_level.h"
#include "kernels/forest_votes.h"

namespace millrace::binding {
namespace {

uint32_t to_uint32(const Napi::Value& value) {
  const uint64_t number = to_uint(value);
  if (number > 0xffffffff) throw bad_argument(value.Env(), "a whole number below 2^32 is wanted here");
  return static_cast<uint32_t>(number);
}

std::vector<uint32_t> to_uints(const Napi::Value& value, const char* what) {
  return to_numbers<uint32_t>(value, napi_uint32_array, what);
}
std::vector<double> to_doubles(const Napi::Value& value, const char* what) {
  return to_numbers<double>(value, napi_float64_array, what);
}

template <class T>
Napi::Value from_doubles(Napi::Env env, const std::vector<T>& numbers) {
  Napi::Float64Array array = Napi::Float64Array::New(env, numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) array[i] = static_cast<double>(numbers[i]);
  return array;
}
Napi::Value from_uints(Napi::Env env, const std::vector<uint32_t>& numbers) {
  Napi::Uint32Array array = Napi::Uint32Array::New(env, numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) array[i] = numbers[i];
  return array;
}

ForestOptions to_options(const Napi::Value& value) {
  const Napi::Object object = to_object(value, "options of a forest are an object");
  ForestOptions options;
  options.seed = to_uint(object.Get("seed"));
  options.features = to_uint32(object.Get("features"));
  options.bins = to_uint32(object.Get("bins"));
  options.classes = to_uint32(object.Get("classes"));
  options.features_per_node = to_uint32(object.Get("featuresPerNode"));
  options.depth_max = to_uint32(object.Get("depthMax"));
  options.leaf_min = to_uint(object.Get("leafMin"));
  options.entropy = to_bool(object.Get("entropy"), "entropy must be a boolean");
  options.bagging = to_bool(object.Get("bagging"), "bagging must be a boolean");
  options.class_weights = to_doubles(object.Get("classWeights"), "classWeights must be a Float64Array");
  options.categorical = to_numbers<uint8_t>(object.Get("categorical"), napi_uint8_array,
                                                             "categorical must be a Uint8Array");
  check(value.Env(), check_forest_options(options));
  return options;
}

using ManyBytes = std::vector<AlignedBytes>;

std::shared_ptr<ManyBytes> hold_many(HoldingWork& work, const Napi::Value& value, const char* name) {
  auto all = std::make_shared<ManyBytes>();
  for (std::span<const uint8_t> bytes : work.hold_all(value, name)) all->push_back({bytes, {}});
  return all;
}

std::vector<std::span<const uint8_t>> open_many(ManyBytes& all) {
  std::vector<std::span<const uint8_t>> opened;
  for (AlignedBytes& each : all) opened.push_back(each.open());
  return opened;
}

Result<std::vector<TrainingRows>> open_rows(ManyBytes& blocks) {
  std::vector<TrainingRows> rows;
  for (AlignedBytes& block : blocks) {
    auto opened = open_training_block(block.open());
    if (!opened.ok()) return opened.status();
    rows.push_back(*opened);
  }
  return rows;
}

Napi::Object from_parts(Napi::Env env, const std::vector<uint64_t>& offsets, const std::vector<uint32_t>& checksums) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("offsets", from_doubles(env, offsets));
  object.Set("checksums", from_uints(env, checksums));
  return object;
}

// labelFacts(seed, share, classes, blocks)
Napi::Value label_facts_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const uint64_t seed = to_uint(info[0]);
  const double share = to_number(info[1], "share must be a number");
  const uint32_t classes = to_uint32(info[2]);
  auto blocks = hold_many(*work, info[3], "blocks");
  auto facts = std::make_shared<LabelFacts>();
  return work.release()->start(
      [=] {
        auto rows = open_rows(*blocks);
        if (!rows.ok()) return rows.status();
        auto found = find_label_facts(seed, share, classes, *rows);
        if (found.ok()) *facts = *found;
        return found.status();
      },
      [facts](Napi::Env env) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("rows", static_cast<double>(facts->rows));
        object.Set("sampled", static_cast<double>(facts->sampled));
        object.Set("classRows", from_doubles(env, facts->class_rows));
        object.Set("min", facts->min);
        object.Set("max", facts->max);
        return object;
      });
}

// sampleFeatures(seed, share, blocks, cuts, out)
Napi::Value sample_features_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const uint64_t seed = to_uint(info[0]);
  const double share = to_number(info[1], "share must be a number");
  auto blocks = hold_many(*work, info[2], "blocks");
  const std::vector<uint32_t> cuts = to_uints(info[3], "cuts must be a Uint32Array");
  const std::span<uint8_t> out = work->hold(info[4], "out", Access::kWrite);
  auto parts = std::make_shared<SampleParts>();
  return work.release()->start(
      [=] {
        auto rows = open_rows(*blocks);
        if (!rows.ok()) return rows.status();
        auto found = sample_features(seed, share, *rows, cuts, out);
        if (found.ok()) *parts = *found;
        return found.status();
      },
      [parts](Napi::Env env) { return from_parts(env, parts->offsets, parts->checksums); });
}

// chooseBins(bins, categories, samples)
Napi::Value choose_bins_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const uint32_t bins = to_uint32(info[0]);
  const std::vector<uint32_t> categories = to_uints(info[1], "categories must be a Uint32Array");
  const auto samples = work->hold_all(info[2], "samples");
  auto tables = std::make_shared<BinTables>();
  return work.release()->start(
      [=] {
        auto found = choose_bins(bins, categories, samples);
        if (found.ok()) *tables = *found;
        return found.status();
      },
      [tables](Napi::Env env) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("ends", from_uints(env, tables->ends));
        object.Set("values", from_doubles(env, tables->values));
        return object;
      });
}

// binnedBytes(rows, features, classes)
Napi::Value binned_bytes_js(const Napi::CallbackInfo& info) {
  const uint64_t rows = to_uint(info[0]);
  const uint32_t features = to_uint32(info[1]);
  if (rows > kForestRowsMax || features > kForestFeaturesMax) {
    throw bad_argument(info.Env(), "more rows or features than a forest can be grown from");
  }
  return Napi::Number::New(info.Env(), static_cast<double>(binned_block_bytes(rows, features, to_uint32(info[2]))));
}

// binRows(options, tables, fixedPoint, block, out)
Napi::Value bin_rows_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  auto options = std::make_shared<ForestOptions>(to_options(info[0]));
  const Napi::Object table = to_object(info[1], "tables are an object");
  auto tables = std::make_shared<BinTables>();
  tables->ends = to_uints(table.Get("ends"), "ends must be a Uint32Array");
  tables->values = to_doubles(table.Get("values"), "values must be a Float64Array");
  tables->kinds = options->categorical;
  const Napi::Object point = to_object(info[2], "a fixed point is an object");
  const FixedPoint fixed{to_number(point.Get("center"), "center must be a number"),
                         to_number(point.Get("scale"), "scale must be a number")};
  auto block = std::make_shared<AlignedBytes>(AlignedBytes{work->hold(info[3], "block", Access::kRead), {}});
  const std::span<uint8_t> out = work->hold(info[4], "out", Access::kWrite);
  return work.release()->start(
      [=] {
        auto rows = open_training_block(block->open());
        if (!rows.ok()) return rows.status();
        return bin_rows(*options, *tables, fixed, *rows, out);
      },
      [](Napi::Env env) { return env.Undefined(); });
}

// slotHistogramBytes(options)
Napi::Value slot_histogram_bytes_js(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(slot_histogram_bytes(to_options(info[0]))));
}

// levelHistograms(options, level, blocks, cuts, out)
Napi::Value level_histograms_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  auto options = std::make_shared<ForestOptions>(to_options(info[0]));
  auto level = std::make_shared<AlignedBytes>(AlignedBytes{work->hold(info[1], "level", Access::kRead), {}});
  auto blocks = hold_many(*work, info[2], "blocks");
  const std::vector<uint32_t> cuts = to_uints(info[3], "cuts must be a Uint32Array");
  const std::span<uint8_t> out = work->hold(info[4], "out", Access::kWrite);
  auto parts = std::make_shared<HistogramParts>();
  return work.release()->start(
      [=] {
        auto found = level_histograms(*options, level->open(), open_many(*blocks), cuts, out);
        if (found.ok()) *parts = *found;
        return found.status();
      },
      [parts](Napi::Env env) { return from_parts(env, parts->offsets, parts->checksums); });
}

Napi::Object from_sums(Napi::Env env, const NodeSums& sums) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("rows", static_cast<double>(sums.rows));
  object.Set("sum", Napi::BigInt::New(env, sums.sum));
  object.Set("classRows", from_doubles(env, sums.class_rows));
  return object;
}

Napi::Value from_splits(Napi::Env env, const std::vector<SlotSplit>& splits) {
  constexpr const char* kStates[] = {"leaf", "split", "again"};
  Napi::Array array = Napi::Array::New(env, splits.size());
  for (uint32_t i = 0; i < splits.size(); ++i) {
    const SlotSplit& split = splits[i];
    Napi::Object object = Napi::Object::New(env);
    object.Set("state", kStates[static_cast<uint32_t>(split.state)]);
    object.Set("feature", static_cast<double>(split.split.feature));
    object.Set("gain", split.split.gain);
    std::vector<uint32_t> left(sizeof(BinSet) / sizeof(uint32_t));
    std::memcpy(left.data(), split.split.left.words, sizeof(BinSet));
    object.Set("left", from_uints(env, left));
    object.Set("leftId", Napi::BigInt::New(env, split.left_id));
    object.Set("rightId", Napi::BigInt::New(env, split.right_id));
    object.Set("all", from_sums(env, split.all));
    object.Set("leftSums", from_sums(env, split.left));
    array.Set(i, object);
  }
  return array;
}

SlotRange to_range(const Napi::Value& first, const Napi::Value& count) { return {to_uint32(first), to_uint32(count)}; }

// levelSplits(options, level, first, count, histograms, checksums)
Napi::Value level_splits_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  auto options = std::make_shared<ForestOptions>(to_options(info[0]));
  auto level = std::make_shared<AlignedBytes>(AlignedBytes{work->hold(info[1], "level", Access::kRead), {}});
  const SlotRange slots = to_range(info[2], info[3]);
  auto histograms = hold_many(*work, info[4], "histograms");
  const std::vector<uint32_t> checksums = to_uints(info[5], "checksums must be a Uint32Array");
  auto splits = std::make_shared<std::vector<SlotSplit>>();
  return work.release()->start(
      [=] {
        auto found = level_splits(*options, level->open(), slots, open_many(*histograms), checksums);
        if (found.ok()) *splits = std::move(*found);
        return found.status();
      },
      [splits](Napi::Env env) { return from_splits(env, *splits); });
}

// finishSlots(options, level, first, count, blocks)
Napi::Value finish_slots_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  auto options = std::make_shared<ForestOptions>(to_options(info[0]));
  auto level = std::make_shared<AlignedBytes>(AlignedBytes{work->hold(info[1], "level", Access::kRead), {}});
  const SlotRange slots = to_range(info[2], info[3]);
  auto blocks = hold_many(*work, info[4], "blocks");
  auto trees = std::make_shared<std::vector<uint8_t>>();
  return work.release()->start(
      [=] { return finish_slots(*options, level->open(), slots, open_many(*blocks), *trees); },
      [trees](Napi::Env env) -> Napi::Value { return Napi::Buffer<uint8_t>::Copy(env, trees->data(), trees->size()); });
}

// forestVotes(forest, block, outOfBag, around, predictions)
Napi::Value forest_votes_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  auto forest = std::make_shared<AlignedBytes>(AlignedBytes{work->hold(info[0], "forest", Access::kRead), {}});
  auto block = std::make_shared<AlignedBytes>(AlignedBytes{work->hold(info[1], "block", Access::kRead), {}});
  std::shared_ptr<ForestOptions> bag;
  if (!info[2].IsNull()) bag = std::make_shared<ForestOptions>(to_options(info[2]));
  const double around = to_number(info[3], "around must be a number");
  const bool keeps = to_bool(info[4], "whether predictions are wanted is a boolean");
  struct Found {
    VoteTally tally;
    std::vector<double> predictions;
  };
  auto found = std::make_shared<Found>();
  return work.release()->start(
      [=] {
        auto rows = open_training_block(block->open());
        if (!rows.ok()) return rows.status();
        if (keeps) found->predictions.resize(rows->shape.rows);
        auto tally = forest_votes(forest->open(), *rows, {bag.get(), around}, found->predictions);
        if (tally.ok()) found->tally = std::move(*tally);
        return tally.status();
      },
      [found](Napi::Env env) {
        const VoteTally& tally = found->tally;
        Napi::Object object = Napi::Object::New(env);
        object.Set("rows", from_doubles(env, tally.rows));
        object.Set("right", from_doubles(env, tally.right));
        object.Set("squares", from_doubles(env, tally.squares));
        object.Set("confusion", from_doubles(env, tally.confusion));
        object.Set("labelSum", tally.label_sum);
        object.Set("labelSquares", tally.label_squares);
        object.Set("predictions", from_doubles(env, found->predictions));
        return object;
      });
}

}  // namespace

void register_forest(Napi::Env env, Napi::Object exports) {
  Napi::Object forest = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    forest.Set(name, Napi::Function::New(env, function, name));
  };
  add("labelFacts", label_facts_js);
  add("sampleFeatures", sample_features_js);
  add("chooseBins", choose_bins_js);
  add("binnedBytes", binned_bytes_js);
  add("binRows", bin_rows_js);
  add("slotHistogramBytes", slot_histogram_bytes_js);
  add("levelHistograms", level_histograms_js);
  add("levelSplits", level_splits_js);
  add("finishSlots", finish_slots_js);
  add("forestVotes", forest_votes_js);
  exports.Set("forest", forest);
}

}  // namespace millrace::binding
