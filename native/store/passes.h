// Who may open a session of a namespace: the holder of its token, always, and the holders of passes, until they expire.
// A pass is made by the control plane for somebody whose own credentials expire. Thread-safe.
#pragma once
#include <algorithm>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "base/status.h"
#include "store/store.h"

namespace millrace {

class Passes {
 public:
  explicit Passes(const Token& token) : token_(token) {}

  // RESOURCE_EXHAUSTED where as many are good already as a namespace may have.
  Status add(const Token& token, Pass pass, uint64_t now_unix_ms) {
    std::lock_guard lock(mutex_);
    std::erase_if(given_, [&](const auto& one) { return one.second.expired(now_unix_ms) || same(one.first, token.data()); });
    if (given_.size() >= kPassesMax) {
      return Status(Code::kResourceExhausted, "a namespace has at most " + std::to_string(kPassesMax) +
                                                  " holders of session credentials at a time");
    }
    given_.emplace_back(token, pass);
    return Status();
  }

  // What whoever shows these 16 bytes may do; nothing where they are nobody's, or expired.
  std::optional<Pass> find(const uint8_t* token, uint64_t now_unix_ms) const {
    std::optional<Pass> found;
    if (same(token_, token)) found = Pass{};
    std::lock_guard lock(mutex_);
    for (const auto& [of, pass] : given_) {
      if (same(of, token) && !pass.expired(now_unix_ms)) found = pass;
    }
    return found;
  }

  static constexpr size_t kPassesMax = 4096;

 private:
  // In constant time: the token is a secret.
  static bool same(const Token& token, const uint8_t* other) {
    uint8_t difference = 0;
    for (size_t i = 0; i < token.size(); ++i) difference |= token[i] ^ other[i];
    return difference == 0;
  }

  const Token token_;
  mutable std::mutex mutex_;
  std::vector<std::pair<Token, Pass>> given_;
};

}  // namespace millrace
