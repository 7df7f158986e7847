#include "binding/inspect.h"

#include <memory>

#include "binding/convert.h"
#include "binding/promise_work.h"
#include "binding/scrub.h"
#include "store/inspect.h"

namespace millrace::binding {

namespace {

Napi::Value from_inspection(Napi::Env env, const Inspection& found) {
  Napi::Array segments = Napi::Array::New(env, found.segments.size());
  for (size_t i = 0; i < found.segments.size(); ++i) {
    const Inspection::SegmentRemains& segment = found.segments[i];
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
  result.Set("objects", static_cast<double>(found.objects));
  result.Set("sizeBytes", static_cast<double>(found.size_bytes));
  result.Set("torn", static_cast<double>(found.torn));
  result.Set("segments", segments);
  result.Set("damaged", from_damages(env, found.damaged));
  return result;
}

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
  places.token = to_token(options.Get("token"));
  places.memory_folders = to_texts(options.Get("memoryFolders"));
  places.nvme_folders = to_texts(options.Get("nvmeFolders"));
  places.verify = options.Get("verify").ToBoolean().Value();
  auto found = std::make_shared<Inspection>();
  const auto run = [places = std::move(places), found] {
    auto inspected = inspect(places);
    if (inspected.ok()) *found = std::move(*inspected);
    return inspected.status();
  };
  return (new PromiseWork(info.Env()))->start(run, [found](Napi::Env env) { return from_inspection(env, *found); });
}

}  // namespace

void register_inspect(Napi::Env env, Napi::Object exports) {
  exports.Set("inspectNamespace", Napi::Function::New(env, inspect_namespace, "inspectNamespace"));
}

}  // namespace millrace::binding
