// Conversions between JavaScript values and the store's types. Wrong types throw; nothing is coerced.
#pragma once
#include <napi.h>

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "store/store.h"

namespace millrace::binding {

// A JavaScript Error with the stable `code` of the status.
inline Napi::Error to_error(Napi::Env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.message());
  error.Set("code", Napi::String::New(env, code_name(status.code())));
  error.Set("retryable", Napi::Boolean::New(env, code_retryable(status.code())));
  return error;
}
inline void check(Napi::Env env, const Status& status) {
  if (!status.ok()) throw to_error(env, status);
}
inline Napi::Error bad_argument(Napi::Env env, const char* what) {
  return to_error(env, Status(Code::kInvalidArgument, what));
}

// UTF-8 bytes of a key given as a string or a Uint8Array.
inline std::string to_key(Napi::Value value) {
  if (value.IsString()) return value.As<Napi::String>().Utf8Value();
  if (value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array) {
    auto bytes = value.As<Napi::Uint8Array>();
    return std::string(reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength());
  }
  throw bad_argument(value.Env(), "a key is a string or a Uint8Array");
}

inline ConstSpan to_bytes(Napi::Value value) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw bad_argument(value.Env(), "bytes are a Uint8Array");
  }
  auto bytes = value.As<Napi::Uint8Array>();
  return {bytes.Data(), bytes.ByteLength()};
}

// Null: none.
inline std::string_view to_attributes(Napi::Value value) {
  if (value.IsNull()) return {};
  const ConstSpan bytes = to_bytes(value);
  return {reinterpret_cast<const char*>(bytes.data), bytes.bytes};
}
inline Napi::Value from_attributes(Napi::Env env, const std::string& attributes) {
  if (attributes.empty()) return env.Null();
  return Napi::Buffer<char>::Copy(env, attributes.data(), attributes.size());
}

inline Token to_token(Napi::Value value) {
  const ConstSpan bytes = to_bytes(value);
  Token token;
  if (bytes.bytes != token.size()) throw bad_argument(value.Env(), "a token has 16 bytes");
  std::memcpy(token.data(), bytes.data, bytes.bytes);
  return token;
}

inline std::string to_text(Napi::Value value) {
  if (!value.IsString()) throw bad_argument(value.Env(), "a string is wanted here");
  return value.As<Napi::String>().Utf8Value();
}

// A whole number of 0 to 2^53.
inline uint64_t to_uint(Napi::Value value) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(number >= 0 && number <= 9007199254740992.0) || number != static_cast<double>(static_cast<uint64_t>(number))) {
    throw bad_argument(value.Env(), "a whole number from 0 to 2^53 is wanted here");
  }
  return static_cast<uint64_t>(number);
}

inline double to_number(Napi::Value value, const char* what) {
  if (!value.IsNumber()) throw bad_argument(value.Env(), what);
  return value.As<Napi::Number>().DoubleValue();
}

inline bool to_bool(Napi::Value value, const char* what = "a boolean is wanted here") {
  if (!value.IsBoolean()) throw bad_argument(value.Env(), what);
  return value.As<Napi::Boolean>().Value();
}

inline Napi::Object to_object(Napi::Value value, const char* what) {
  if (!value.IsObject()) throw bad_argument(value.Env(), what);
  return value.As<Napi::Object>();
}

// A copy of a typed array of exactly this type.
template <class T>
std::vector<T> to_numbers(Napi::Value value, napi_typedarray_type type, const char* what) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) throw bad_argument(value.Env(), what);
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  // Data() of an empty array may be any pointer.
  if (array.ElementLength() == 0) return {};
  return std::vector<T>(array.Data(), array.Data() + array.ElementLength());
}

inline Condition to_condition(Napi::Value value) {
  if (!value.IsObject()) throw bad_argument(value.Env(), "a condition is an object");
  auto object = value.As<Napi::Object>();
  return {object.Get("ifAbsent").ToBoolean().Value(), to_uint(object.Get("ifSequence"))};
}

inline Napi::Object from_info(Napi::Env env, const ObjectInfo& info) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("sizeBytes", static_cast<double>(info.size_bytes));
  object.Set("sequence", static_cast<double>(info.sequence));
  object.Set("crc32c", static_cast<double>(info.crc32c));
  object.Set("sealedUnixMs", static_cast<double>(info.sealed_unix_s) * 1000);
  return object;
}

}  // namespace millrace::binding
