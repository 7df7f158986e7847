#include "binding/learning.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "binding/convert.h"
#include "binding/held_bytes.h"
#include "kernels/deal_features.h"
#include "kernels/deal_rows.h"
#include "kernels/dual_ascent.h"
#include "kernels/lasso_descent.h"
#include "kernels/linear_scores.h"
#include "kernels/training_rows.h"

namespace millrace::binding {
namespace {

constexpr uint64_t kPassesMax = 1'000'000;

Deal to_deal(const Napi::Value& value) {
  const Napi::Object object = to_object(value, "a deal is an object");
  Deal deal;
  deal.partitions = to_uint(object.Get("partitions"));
  deal.seed = to_uint(object.Get("seed"));
  deal.widths = to_numbers<uint32_t>(object.Get("widths"), napi_uint32_array, "widths must be a Uint32Array");
  deal.unit_rows = to_bool(object.Get("unitRows"), "unitRows must be a boolean");
  deal.intercept = to_bool(object.Get("intercept"), "intercept must be a boolean");
  deal.in_order = to_bool(object.Get("inOrder"), "inOrder must be a boolean");
  if (!object.Get("positive").IsNull()) deal.positive = to_number(object.Get("positive"), "positive must be a number or null");
  return deal;
}

struct HeldBlock {
  AlignedBytes held;
  TrainingRows rows;

  Status open() {
    auto opened = open_training_block(held.open());
    if (!opened.ok()) return opened.status();
    rows = *opened;
    return Status();
  }
};

using Blocks = std::vector<HeldBlock>;

std::shared_ptr<Blocks> hold_blocks(HoldingWork& work, const Napi::Value& value) {
  auto blocks = std::make_shared<Blocks>();
  for (std::span<const uint8_t> bytes : work.hold_all(value, "blocks")) blocks->push_back({{bytes, {}}, {}});
  return blocks;
}

Result<std::vector<TrainingRows>> open_all(Blocks& blocks) {
  std::vector<TrainingRows> rows;
  for (HeldBlock& block : blocks) {
    if (Status failed = block.open(); !failed.ok()) return failed;
    rows.push_back(block.rows);
  }
  return rows;
}

// Numbers that a kernel reads. A copy where they are not aligned.
struct HeldNumbers {
  AlignedBytes held;

  Result<std::span<const double>> open(const char* name) {
    const std::span<const uint8_t> bytes = held.open();
    if (bytes.size() % sizeof(double) != 0) {
      return Status(Code::kInvalidArgument, std::string(name) + " must be whole 64-bit numbers");
    }
    return std::span(reinterpret_cast<const double*>(bytes.data()), bytes.size() / sizeof(double));
  }
};

// Numbers that a kernel writes: worked out in memory of its own where the place is not aligned.
class NumbersOut {
 public:
  explicit NumbersOut(std::span<uint8_t> bytes) : bytes_(bytes) {}
  Result<std::span<double>> open(const char* name) {
    if (bytes_.size() % sizeof(double) != 0) {
      return Status(Code::kInvalidArgument, std::string(name) + " must be whole 64-bit numbers");
    }
    if (reinterpret_cast<uintptr_t>(bytes_.data()) % alignof(double) == 0) {
      return std::span(reinterpret_cast<double*>(bytes_.data()), bytes_.size() / sizeof(double));
    }
    own_.resize(bytes_.size() / sizeof(double));
    return std::span<double>(own_);
  }
  void close() {
    if (!own_.empty()) std::memcpy(bytes_.data(), own_.data(), bytes_.size());
  }

 private:
  std::span<uint8_t> bytes_;
  std::vector<double> own_;
};

Napi::Object from_shape(Napi::Env env, const TrainingShape& shape) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("firstRow", static_cast<double>(shape.first_row));
  object.Set("rows", static_cast<double>(shape.rows));
  object.Set("features", static_cast<double>(shape.features));
  object.Set("nonZeros", static_cast<double>(shape.non_zeros));
  object.Set("sparse", shape.sparse);
  auto bytes = training_block_bytes(shape);
  check(env, bytes.status());
  object.Set("bytes", static_cast<double>(*bytes));
  return object;
}

Napi::Value shape_promise(std::unique_ptr<HoldingWork> work, std::function<Result<TrainingShape>()> find) {
  auto shape = std::make_shared<TrainingShape>();
  return work.release()->start(
      [shape, find = std::move(find)] {
        auto found = find();
        if (!found.ok()) return found.status();
        *shape = *found;
        return Status();
      },
      [shape](Napi::Env env) { return from_shape(env, *shape); });
}

Napi::Value undefined(Napi::Env env) { return env.Undefined(); }

// dealtShape(deal, partition, blocks)
Napi::Value dealt_shape_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const Deal deal = to_deal(info[0]);
  const uint64_t partition = to_uint(info[1]);
  auto blocks = hold_blocks(*work, info[2]);
  return shape_promise(std::move(work), [=]() -> Result<TrainingShape> {
    auto rows = open_all(*blocks);
    if (!rows.ok()) return rows.status();
    return dealt_shape(deal, partition, *rows);
  });
}

// dealRows(deal, partition, blocks, out)
Napi::Value deal_rows_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const Deal deal = to_deal(info[0]);
  const uint64_t partition = to_uint(info[1]);
  auto blocks = hold_blocks(*work, info[2]);
  const std::span<uint8_t> out = work->hold(info[3], "out", Access::kWrite);
  return work.release()->start(
      [=] {
        auto rows = open_all(*blocks);
        if (!rows.ok()) return rows.status();
        return deal_rows(deal, partition, *rows, out);
      },
      undefined);
}

// dealtFeaturesShape(deal, partition, blocks, rows)
Napi::Value dealt_features_shape_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const Deal deal = to_deal(info[0]);
  const uint64_t partition = to_uint(info[1]);
  auto blocks = hold_blocks(*work, info[2]);
  const uint64_t count = to_uint(info[3]);
  return shape_promise(std::move(work), [=]() -> Result<TrainingShape> {
    auto rows = open_all(*blocks);
    if (!rows.ok()) return rows.status();
    return dealt_features_shape(deal, partition, *rows, count);
  });
}

// dealFeatures(deal, partition, blocks, rows, out)
Napi::Value deal_features_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const Deal deal = to_deal(info[0]);
  const uint64_t partition = to_uint(info[1]);
  auto blocks = hold_blocks(*work, info[2]);
  const uint64_t count = to_uint(info[3]);
  const std::span<uint8_t> out = work->hold(info[4], "out", Access::kWrite);
  return work.release()->start(
      [=] {
        auto rows = open_all(*blocks);
        if (!rows.ok()) return rows.status();
        return deal_features(deal, partition, *rows, count, out);
      },
      undefined);
}

// dealLabels(deal, blocks, out)
Napi::Value deal_labels_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const Deal deal = to_deal(info[0]);
  auto blocks = hold_blocks(*work, info[1]);
  const std::span<uint8_t> out = work->hold(info[2], "out", Access::kWrite);
  return work.release()->start(
      [=] {
        auto rows = open_all(*blocks);
        if (!rows.ok()) return rows.status();
        NumbersOut numbers(out);
        auto labels = numbers.open("out");
        if (!labels.ok()) return labels.status();
        const Status status = deal_labels(deal, *rows, *labels);
        numbers.close();
        return status;
      },
      undefined);
}

// What both solvers are called with: (problem, block, model, variables, variablesOut, deltaOut).
struct Descent {
  HeldBlock block;
  HeldNumbers model;      // w, or the residual
  HeldNumbers variables;  // alpha, or the weights
  std::span<uint8_t> variables_out;
  std::span<uint8_t> delta_out;

  Status run(const std::function<Status(const TrainingRows&, std::span<const double>, std::span<double>, std::span<double>)>& solve) {
    if (Status failed = block.open(); !failed.ok()) return failed;
    auto from = model.open("the model");
    if (!from.ok()) return from.status();
    auto before = variables.open("the variables");
    if (!before.ok()) return before.status();
    NumbersOut variables_to(variables_out), delta_to(delta_out);
    auto after = variables_to.open("the variables' place");
    if (!after.ok()) return after.status();
    auto delta = delta_to.open("delta's place");
    if (!delta.ok()) return delta.status();
    if (before->size() != after->size()) return Status(Code::kInvalidArgument, "the variables need a place of their own size");
    std::copy(before->begin(), before->end(), after->begin());
    const Status status = solve(block.rows, *from, *after, *delta);
    variables_to.close();
    delta_to.close();
    return status;
  }
};

std::shared_ptr<Descent> hold_descent(HoldingWork& work, const Napi::CallbackInfo& info) {
  auto descent = std::make_shared<Descent>();
  descent->block.held.bytes = work.hold(info[1], "block", Access::kRead);
  descent->model.held.bytes = work.hold(info[2], "model", Access::kRead);
  descent->variables.held.bytes = work.hold(info[3], "variables", Access::kRead);
  descent->variables_out = work.hold(info[4], "variablesOut", Access::kWrite);
  descent->delta_out = work.hold(info[5], "deltaOut", Access::kWrite);
  return descent;
}

uint32_t to_passes(const Napi::Value& value) {
  const uint64_t passes = to_uint(value);
  if (passes == 0 || passes > kPassesMax) throw bad_argument(value.Env(), "passes must be from 1 to 1,000,000");
  return static_cast<uint32_t>(passes);
}

Loss to_loss(const Napi::Value& value) {
  const std::string name = to_text(value);
  if (name == "hinge") return Loss::kHinge;
  if (name == "logistic") return Loss::kLogistic;
  if (name == "squared") return Loss::kSquared;
  throw bad_argument(value.Env(), "loss must be hinge, logistic or squared");
}

Napi::Value dual_ascent_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const Napi::Object object = to_object(info[0], "a problem is an object");
  DualAscent problem;
  problem.loss = to_loss(object.Get("loss"));
  problem.lambda = to_number(object.Get("lambda"), "lambda must be a number");
  problem.rows = to_uint(object.Get("rows"));
  problem.sigma = to_number(object.Get("sigma"), "sigma must be a number");
  problem.gamma = to_number(object.Get("gamma"), "gamma must be a number");
  problem.passes = to_passes(object.Get("passes"));
  problem.seed = to_uint(object.Get("seed"));
  auto descent = hold_descent(*work, info);
  auto sums = std::make_shared<DualAscentSums>();
  return work.release()->start(
      [=] {
        return descent->run([&](const TrainingRows& rows, std::span<const double> w, std::span<double> alpha,
                                std::span<double> delta) {
          auto found = dual_ascent(problem, rows, w, alpha, delta);
          if (found.ok()) *sums = *found;
          return found.status();
        });
      },
      [sums](Napi::Env env) {
        Napi::Object result = Napi::Object::New(env);
        result.Set("loss", sums->loss);
        result.Set("dual", sums->dual);
        result.Set("right", static_cast<double>(sums->right));
        return result;
      });
}

Napi::Value lasso_descent_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  const Napi::Object object = to_object(info[0], "a problem is an object");
  LassoDescent problem;
  problem.lambda = to_number(object.Get("lambda"), "lambda must be a number");
  problem.sigma = to_number(object.Get("sigma"), "sigma must be a number");
  problem.gamma = to_number(object.Get("gamma"), "gamma must be a number");
  problem.passes = to_passes(object.Get("passes"));
  problem.seed = to_uint(object.Get("seed"));
  auto descent = hold_descent(*work, info);
  auto sums = std::make_shared<LassoSums>();
  return work.release()->start(
      [=] {
        return descent->run([&](const TrainingRows& columns, std::span<const double> residual, std::span<double> weights,
                                std::span<double> delta) {
          auto found = lasso_descent(problem, columns, residual, weights, delta);
          if (found.ok()) *sums = *found;
          return found.status();
        });
      },
      [sums](Napi::Env env) {
        Napi::Object result = Napi::Object::New(env);
        result.Set("absolute", sums->absolute);
        result.Set("steepest", sums->steepest);
        result.Set("used", static_cast<double>(sums->used));
        return result;
      });
}

// linearScores(block, w, out)
Napi::Value linear_scores_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  struct Call {
    HeldBlock block;
    HeldNumbers w;
  };
  auto call = std::make_shared<Call>();
  call->block.held.bytes = work->hold(info[0], "block", Access::kRead);
  call->w.held.bytes = work->hold(info[1], "w", Access::kRead);
  const std::span<uint8_t> out = work->hold(info[2], "out", Access::kWrite);
  return work.release()->start(
      [=] {
        if (Status failed = call->block.open(); !failed.ok()) return failed;
        auto w = call->w.open("w");
        if (!w.ok()) return w.status();
        NumbersOut numbers(out);
        auto scores = numbers.open("out");
        if (!scores.ok()) return scores.status();
        const Status status = linear_scores(call->block.rows, *w, *scores);
        numbers.close();
        return status;
      },
      undefined);
}

// linearMetrics(loss, block, w)
Napi::Value linear_metrics_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  struct Call {
    HeldBlock block;
    HeldNumbers w;
    LinearMetrics metrics;
  };
  auto call = std::make_shared<Call>();
  const Loss loss = to_loss(info[0]);
  call->block.held.bytes = work->hold(info[1], "block", Access::kRead);
  call->w.held.bytes = work->hold(info[2], "w", Access::kRead);
  return work.release()->start(
      [=] {
        if (Status failed = call->block.open(); !failed.ok()) return failed;
        auto w = call->w.open("w");
        if (!w.ok()) return w.status();
        auto metrics = linear_metrics(loss, call->block.rows, *w);
        if (metrics.ok()) call->metrics = *metrics;
        return metrics.status();
      },
      [call](Napi::Env env) {
        Napi::Object result = Napi::Object::New(env);
        result.Set("loss", call->metrics.loss);
        result.Set("right", static_cast<double>(call->metrics.right));
        result.Set("squaredError", call->metrics.squared_error);
        return result;
      });
}

// dot(a, b)
Napi::Value dot_js(const Napi::CallbackInfo& info) {
  auto work = std::make_unique<HoldingWork>(info.Env());
  struct Call {
    HeldNumbers a, b;
    double product = 0;
  };
  auto call = std::make_shared<Call>();
  call->a.held.bytes = work->hold(info[0], "a", Access::kRead);
  call->b.held.bytes = work->hold(info[1], "b", Access::kRead);
  return work.release()->start(
      [=] {
        auto a = call->a.open("a");
        if (!a.ok()) return a.status();
        auto b = call->b.open("b");
        if (!b.ok()) return b.status();
        auto product = dot_product(*a, *b);
        if (product.ok()) call->product = *product;
        return product.status();
      },
      [call](Napi::Env env) { return Napi::Number::New(env, call->product); });
}

}  // namespace

void register_learning(Napi::Env env, Napi::Object exports) {
  Napi::Object learning = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    learning.Set(name, Napi::Function::New(env, function, name));
  };
  add("dealtShape", dealt_shape_js);
  add("dealRows", deal_rows_js);
  add("dealtFeaturesShape", dealt_features_shape_js);
  add("dealFeatures", deal_features_js);
  add("dealLabels", deal_labels_js);
  add("dualAscent", dual_ascent_js);
  add("lassoDescent", lasso_descent_js);
  add("linearScores", linear_scores_js);
  add("linearMetrics", linear_metrics_js);
  add("dot", dot_js);
  exports.Set("learning", learning);
}

}  // namespace millrace::binding
