#include "binding/inspect.h"

#include <cstring>

#include "binding/convert.h"
#include "binding/scrub.h"
#include "store/inspect.h"

namespace millrace::binding {

namespace {

class InspectWorker final : public Napi::AsyncWorker {
 public:
  InspectWorker(Napi::Env env, InspectPlaces places)
      : AsyncWorker(env, "millrace:inspectNamespace"), deferred_(env), places_(std::move(places)) {}

  Napi::Promise promise() { return deferred_.Promise(); }

 protected:
  void Execute() override {
    auto found = inspect(places_);
    status_ = found.status();
    if (found.ok()) found_ = std::move(*found);
  }

  void OnOK() override {
    Napi::Env env = Env();
    Napi::HandleScope scope(env);
    if (!status_.ok()) {
      deferred_.Reject(to_error(env, status_).Value());
      return;
    }
    Napi::Array segments = Napi::Array::New(env, found_.segments.size());
    for (size_t i = 0; i < found_.segments.size(); ++i) {
      const Inspection::SegmentRemains& segment = found_.segments[i];
      Napi::Object object = Napi::Object::New(env);
      object.Set("number", static_cast<double>(segment.number));
      object.Set("tier", segment.in_file ? "nvme" : "dram");
      object.Set("path", segment.path);
      object.Set("bytes", static_cast<double>(segment.bytes));
      object.Set("liveBytes", static_cast<double>(segment.live_bytes));
      object.Set("objects", static_cast<double>(segment.objects));
      segments.Set(static_cast<uint32_t>(i), object);
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("objects", static_cast<double>(found_.objects));
    result.Set("sizeBytes", static_cast<double>(found_.size_bytes));
    result.Set("torn", static_cast<double>(found_.torn));
    result.Set("segments", segments);
    result.Set("damaged", from_damages(env, found_.damaged));
    deferred_.Resolve(result);
  }

 private:
  Napi::Promise::Deferred deferred_;
  const InspectPlaces places_;
  Status status_;
  Inspection found_;
};

std::vector<std::string> to_texts(Napi::Value value) {
  if (!value.IsArray()) throw bad_argument(value.Env(), "a list of paths is wanted here");
  std::vector<std::string> texts;
  auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) texts.push_back(to_text(array.Get(i)));
  return texts;
}

Napi::Value inspect_namespace(const Napi::CallbackInfo& info) {
  if (!info[0].IsObject()) throw bad_argument(info.Env(), "inspectNamespace takes its options");
  auto options = info[0].As<Napi::Object>();
  InspectPlaces places;
  places.name = to_text(options.Get("name"));
  const ConstSpan token = to_bytes(options.Get("token"));
  if (token.bytes != places.token.size()) throw bad_argument(info.Env(), "a token has 16 bytes");
  std::memcpy(places.token.data(), token.data, token.bytes);
  places.memory_folders = to_texts(options.Get("memoryFolders"));
  places.nvme_folders = to_texts(options.Get("nvmeFolders"));
  places.verify = options.Get("verify").ToBoolean().Value();
  auto* worker = new InspectWorker(info.Env(), std::move(places));
  worker->Queue();
  return worker->promise();
}

}  // namespace

void register_inspect(Napi::Env env, Napi::Object exports) {
  exports.Set("inspectNamespace", Napi::Function::New(env, inspect_namespace, "inspectNamespace"));
}

}  // namespace millrace::binding
