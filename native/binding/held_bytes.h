// Bytes as JavaScript gives them to work that goes on without it: a Uint8Array, or a span of a segment.
#pragma once
#include <napi.h>

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "binding/convert.h"
#include "binding/promise_work.h"
#include "binding/span.h"
#include "segment/mapping.h"

namespace millrace::binding {

struct ByteArgument {
  std::span<uint8_t> bytes;
  Napi::Uint8Array array;      // empty where it is a span
  std::shared_ptr<void> hold;  // null where it is ordinary memory
};

enum class Access { kRead, kWrite };

inline Napi::Uint8Array byte_array(const Napi::Value& value, const char* name) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw bad_argument(value.Env(), (std::string(name) + " must be a Uint8Array or a span").c_str());
  }
  return value.As<Napi::Uint8Array>();
}

inline std::span<uint8_t> bytes_of(Napi::Uint8Array array) {
  // Data() of an empty array may be any pointer.
  return array.ByteLength() == 0 ? std::span<uint8_t>() : std::span<uint8_t>(array.Data(), array.ByteLength());
}

inline ByteArgument byte_argument(const Napi::Value& value, const char* name, Access access) {
  if (SpanHandle* span = SpanHandle::from(value)) {
    if (access == Access::kWrite && !span->writable()) {
      throw bad_argument(value.Env(), (std::string(name) + " is a span for reading only").c_str());
    }
    return {{span->bytes().data, span->bytes().bytes}, {}, span->hold()};
  }
  const Napi::Uint8Array array = byte_array(value, name);
  const std::span<uint8_t> bytes = bytes_of(array);
  return {bytes, array, bytes.empty() ? nullptr : pin_address(bytes.data())};
}

// Holds the arrays (so that their memory is not collected) and the mappings behind arrays and spans (so that closing
// one from JavaScript in the meantime does not unmap it) until the promise settles.
class HoldingWork : public PromiseWork {
 public:
  using PromiseWork::PromiseWork;

  std::span<uint8_t> hold(const Napi::Value& value, const char* name, Access access) {
    ByteArgument argument = byte_argument(value, name, access);
    if (argument.hold) pins_.push_back(std::move(argument.hold));
    if (!argument.array.IsEmpty()) arrays_.push_back(Napi::Persistent(argument.array));
    return argument.bytes;
  }

  // Bytes to be read, an array of them.
  std::vector<std::span<const uint8_t>> hold_all(const Napi::Value& value, const char* name) {
    if (!value.IsArray()) {
      throw bad_argument(value.Env(), (std::string(name) + " must be an array of Uint8Array or spans").c_str());
    }
    const auto array = value.As<Napi::Array>();
    std::vector<std::span<const uint8_t>> spans(array.Length());
    for (uint32_t i = 0; i < array.Length(); ++i) {
      const std::string element = std::string(name) + "[" + std::to_string(i) + "]";
      spans[i] = hold(array.Get(i), element.c_str(), Access::kRead);
    }
    return spans;
  }

 protected:
  void Execute() override {
    PromiseWork::Execute();
    // Here and not with the object, so that a mapping that JavaScript has closed is unmapped off its thread.
    pins_.clear();
  }

 private:
  std::vector<Napi::Reference<Napi::Uint8Array>> arrays_;
  std::vector<std::shared_ptr<void>> pins_;
};

// Bytes to be read, wherever they lie: those that are not aligned are copied, which those of the store never are.
struct AlignedBytes {
  std::span<const uint8_t> bytes;
  std::vector<uint64_t> copy;

  std::span<const uint8_t> open() {
    if (reinterpret_cast<uintptr_t>(bytes.data()) % alignof(uint64_t) != 0) {
      copy.resize((bytes.size() + 7) / 8);
      std::memcpy(copy.data(), bytes.data(), bytes.size());
      bytes = {reinterpret_cast<const uint8_t*>(copy.data()), bytes.size()};
    }
    return bytes;
  }
};

}  // namespace millrace::binding
