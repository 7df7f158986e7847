// Status codes shared by every layer and both languages, and Result<T>. Errors of operations are values;
// bugs are assertions (assert.h). No exception crosses a layer.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <variant>

#include "base/assert.h"

namespace millrace {

// Numbers travel in frames and are therefore a contract: add, never renumber.
//   1xx  the caller's request      2xx  state      3xx  room      4xx  integrity      5xx  transport and system
enum class Code : uint16_t {
  kOk = 0,
  kInvalidArgument = 100,
  kKeyTooLong = 101,
  kObjectTooLarge = 102,
  kOutOfRange = 103,
  kUnauthenticated = 104,
  kUnsupported = 105,
  kPermissionDenied = 106,
  kSqlFailed = 107,
  kNotFound = 200,
  kAlreadyExists = 201,
  kConditionFailed = 202,
  kNamespaceGone = 203,
  kClosed = 204,
  kAborted = 205,
  kCancelled = 206,
  kResourceExhausted = 300,
  kDeadlineExceeded = 301,
  kChecksumMismatch = 400,
  kCorrupt = 401,
  kProtocol = 500,
  kUnavailable = 501,
  kSystem = 502,
  kInternal = 503,
};

// "NOT_FOUND" and so on: the stable `code` of MillraceError.
const char* code_name(Code code);
// Whether the same request may succeed later without change.
bool code_retryable(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  static Status from_errno(const char* what, int error);

  bool ok() const { return code_ == Code::kOk; }
  explicit operator bool() const { return ok(); }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::in_place_index<0>, std::move(value)) {}
  Result(Status status) : value_(std::in_place_index<1>, std::move(status)) { MILLRACE_ASSERT(!ok() && !std::get<1>(value_).ok()); }
  Result(Code code, std::string message) : Result(Status(code, std::move(message))) {}

  bool ok() const { return value_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() { MILLRACE_ASSERT(ok()); return std::get<0>(value_); }
  const T& value() const { MILLRACE_ASSERT(ok()); return std::get<0>(value_); }
  T& operator*() { return value(); }
  T* operator->() { return &value(); }
  Status status() const { return ok() ? Status() : std::get<1>(value_); }
  Code code() const { return ok() ? Code::kOk : std::get<1>(value_).code(); }

 private:
  std::variant<T, Status> value_;
};

}  // namespace millrace
