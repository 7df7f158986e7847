#include "base/status.h"

#include <cstring>

namespace millrace {

const char* code_name(Code code) {
  switch (code) {
    case Code::kOk: return "OK";
    case Code::kInvalidArgument: return "INVALID_ARGUMENT";
    case Code::kKeyTooLong: return "KEY_TOO_LONG";
    case Code::kObjectTooLarge: return "OBJECT_TOO_LARGE";
    case Code::kOutOfRange: return "OUT_OF_RANGE";
    case Code::kUnauthenticated: return "UNAUTHENTICATED";
    case Code::kUnsupported: return "UNSUPPORTED";
    case Code::kPermissionDenied: return "PERMISSION_DENIED";
    case Code::kSqlFailed: return "SQL_FAILED";
    case Code::kNotFound: return "NOT_FOUND";
    case Code::kAlreadyExists: return "ALREADY_EXISTS";
    case Code::kConditionFailed: return "CONDITION_FAILED";
    case Code::kNamespaceGone: return "NAMESPACE_GONE";
    case Code::kClosed: return "CLOSED";
    case Code::kAborted: return "ABORTED";
    case Code::kCancelled: return "CANCELLED";
    case Code::kResourceExhausted: return "RESOURCE_EXHAUSTED";
    case Code::kDeadlineExceeded: return "DEADLINE_EXCEEDED";
    case Code::kChecksumMismatch: return "CHECKSUM_MISMATCH";
    case Code::kCorrupt: return "CORRUPT";
    case Code::kProtocol: return "PROTOCOL";
    case Code::kUnavailable: return "UNAVAILABLE";
    case Code::kSystem: return "SYSTEM";
    case Code::kInternal: return "INTERNAL";
  }
  return "INTERNAL";
}

bool code_retryable(Code code) {
  switch (code) {
    case Code::kAborted:
    case Code::kResourceExhausted:
    case Code::kDeadlineExceeded:
    case Code::kUnavailable:
      return true;
    default:
      return false;
  }
}

Status Status::from_errno(const char* what, int error) {
  return Status(Code::kSystem, std::string(what) + ": " + std::strerror(error));
}

}  // namespace millrace
