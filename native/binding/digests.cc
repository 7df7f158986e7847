#include "binding/digests.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/crc.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "base/units.h"
#include "binding/convert.h"

namespace millrace::binding {

namespace {

// So many bytes of a stream are digested on the spot: going to another thread and back costs as much.
constexpr uint64_t kAtOnceBytesMax = 16 * KiB;
// What a thread of the pool takes at a time, at least one buffer: others get their turn, and `drained` settles early.
constexpr uint64_t kBatchBytes = 1 * MiB;
// All digests pass over so much before they go on, so that only the first of them reads memory.
constexpr size_t kBlockBytes = 32 * KiB;

// OpenSSL as Node carries or loads it. The few functions needed are the same in all its versions since 1.1, so they
// are declared here and no headers are needed.
struct Evp {
  void* (*new_context)();
  void (*free_context)(void* context);
  int (*init)(void* context, const void* kind, void* engine);
  int (*update)(void* context, const void* data, size_t bytes);
  int (*final)(void* context, unsigned char* digest, unsigned* bytes);
  const void* (*md5)();
  const void* (*sha1)();
  const void* (*sha256)();
  void (*clear_errors)();
};

// Null where this Node offers none.
const Evp* evp() {
  static const std::optional<Evp> found = []() -> std::optional<Evp> {
    Evp evp{};
    bool all = true;
    const auto find = [&]<class Function>(Function& function, const char* name) {
      function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
      all = all && function != nullptr;
    };
    find(evp.new_context, "EVP_MD_CTX_new");
    find(evp.free_context, "EVP_MD_CTX_free");
    find(evp.init, "EVP_DigestInit_ex");
    find(evp.update, "EVP_DigestUpdate");
    find(evp.final, "EVP_DigestFinal_ex");
    find(evp.md5, "EVP_md5");
    find(evp.sha1, "EVP_sha1");
    find(evp.sha256, "EVP_sha256");
    find(evp.clear_errors, "ERR_clear_error");
    return all ? std::optional(evp) : std::nullopt;
  }();
  return found ? &*found : nullptr;
}

using DigestBytes = std::vector<uint8_t>;

template <class Word>
DigestBytes big_endian(Word value) {
  DigestBytes bytes;
  for (int shift = 8 * sizeof(Word) - 8; shift >= 0; shift -= 8) bytes.push_back(static_cast<uint8_t>(value >> shift));
  return bytes;
}

class Digest {
 public:
  virtual ~Digest() = default;
  virtual bool update(const uint8_t* data, size_t bytes) = 0;
  // Null where it cannot be had.
  virtual std::optional<DigestBytes> finish() = 0;
};

class OpensslDigest : public Digest {
 public:
  // Null where this OpenSSL is set up to refuse the algorithm, as FIPS mode does with MD5.
  static std::unique_ptr<Digest> create(const void* (*Evp::*kind)()) {
    if (evp() == nullptr) return nullptr;
    auto digest = std::make_unique<OpensslDigest>(*evp());
    const void* wanted = (evp()->*kind)();
    if (digest->context_ != nullptr && wanted != nullptr && evp()->init(digest->context_, wanted, nullptr) == 1) {
      return digest;
    }
    evp()->clear_errors();  // or the next one to look finds ours
    return nullptr;
  }
  explicit OpensslDigest(const Evp& evp) : evp_(evp), context_(evp.new_context()) {}
  ~OpensslDigest() override { evp_.free_context(context_); }
  OpensslDigest(const OpensslDigest&) = delete;
  OpensslDigest& operator=(const OpensslDigest&) = delete;

  bool update(const uint8_t* data, size_t bytes) override { return evp_.update(context_, data, bytes) == 1; }
  std::optional<DigestBytes> finish() override {
    DigestBytes digest(64);  // EVP_MAX_MD_SIZE
    unsigned bytes = 0;
    if (evp_.final(context_, digest.data(), &bytes) != 1) return std::nullopt;
    digest.resize(bytes);
    return digest;
  }

 private:
  const Evp& evp_;
  void* const context_;
};

template <auto kFunction, class Word>
class CrcDigest : public Digest {
 public:
  bool update(const uint8_t* data, size_t bytes) override {
    state_ = kFunction(state_, data, bytes);
    return true;
  }
  std::optional<DigestBytes> finish() override { return big_endian(state_); }

 private:
  Word state_ = 0;
};

Result<std::unique_ptr<Digest>> make_digest(const std::string& name) {
  if (name == "crc32") return {std::make_unique<CrcDigest<zlib_crc32, uint32_t>>()};
  if (name == "crc32c") return {std::make_unique<CrcDigest<crc32c, uint32_t>>()};
  if (name == "crc64nvme") return {std::make_unique<CrcDigest<crc64nvme, uint64_t>>()};
  const void* (*Evp::*kind)() = nullptr;
  if (name == "md5") kind = &Evp::md5;
  if (name == "sha1") kind = &Evp::sha1;
  if (name == "sha256") kind = &Evp::sha256;
  if (kind == nullptr) return {Code::kInvalidArgument, "there is no digest " + name};
  auto digest = OpensslDigest::create(kind);
  if (digest == nullptr) return {Code::kUnsupported, "the OpenSSL of this node.js does not offer " + name};
  return digest;
}

Status not_digested() { return {Code::kSystem, "OpenSSL failed to digest the bytes"}; }

// All on JavaScript's thread but `work`. While a batch is under way this object is not collected, and when an
// environment ends it waits for batches under way; nothing of JavaScript's is called then, but all is released.
class Digests : public Napi::ObjectWrap<Digests> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeDigests",
                       {InstanceAccessor<&Digests::backlog_bytes>("backlogBytes"),
                        InstanceMethod<&Digests::update>("update"), InstanceMethod<&Digests::drained>("drained"),
                        InstanceMethod<&Digests::finish>("finish")});
  }
  explicit Digests(const Napi::CallbackInfo& info);

 private:
  struct Piece {
    ConstSpan bytes;
    napi_ref array;  // holds the bytes
  };
  struct Waiter {
    uint64_t backlog_bytes;
    napi_deferred deferred;
  };

  Napi::Value backlog_bytes(const Napi::CallbackInfo& info);
  Napi::Value update(const Napi::CallbackInfo& info);
  Napi::Value drained(const Napi::CallbackInfo& info);
  Napi::Value finish(const Napi::CallbackInfo& info);

  bool digest(ConstSpan bytes);
  void start_batch();
  static void work(napi_env, void* data);
  static void worked(napi_env env, napi_status, void* data);
  void release(Piece& piece);
  void settle();
  void settle_finish(napi_deferred deferred);

  std::vector<std::unique_ptr<Digest>> digests_;
  Status failed_;  // nothing is digested any more

  std::deque<Piece> queue_;
  napi_async_work work_ = nullptr;  // under way
  std::vector<Piece> batch_;        // the pool's, as `digests_` and `batch_digested_`, while there is work
  bool batch_digested_ = true;
  uint64_t given_bytes_ = 0;
  uint64_t backlog_bytes_ = 0;  // of `queue_` and `batch_`
  std::vector<Waiter> waiters_;
  bool finishing_ = false;
  napi_deferred finish_ = nullptr;
};

Digests::Digests(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Digests>(info) {
  if (!info[0].IsArray()) throw bad_argument(info.Env(), "Digests takes a list of names");
  const auto names = info[0].As<Napi::Array>();
  std::vector<std::string> seen;
  for (uint32_t i = 0; i < names.Length(); ++i) {
    std::string name = to_text(names.Get(i));
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
      throw bad_argument(info.Env(), "a digest is named once");
    }
    auto made = make_digest(name);
    check(info.Env(), made.status());
    digests_.push_back(std::move(*made));
    seen.push_back(std::move(name));
  }
}

Napi::Value Digests::backlog_bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(backlog_bytes_));
}

Napi::Value Digests::update(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const ConstSpan bytes = to_bytes(info[0]);
  const napi_value buffer = info[0].As<Napi::Uint8Array>().ArrayBuffer();
  bool detached = false;
  if (napi_is_detached_arraybuffer(env, buffer, &detached) != napi_ok || detached) {
    throw bad_argument(env, "the bytes are detached");
  }
  if (finishing_) throw to_error(env, Status(Code::kClosed, "the digests are finished"));
  given_bytes_ += bytes.bytes;
  if (bytes.bytes == 0 || !failed_.ok()) return env.Undefined();
  if (backlog_bytes_ == 0 && given_bytes_ <= kAtOnceBytesMax) {
    if (!digest(bytes)) failed_ = not_digested();
    return env.Undefined();
  }
  Piece piece{bytes, nullptr};
  if (napi_create_reference(env, info[0], 1, &piece.array) != napi_ok) {
    throw to_error(env, Status(Code::kSystem, "the engine refuses a reference"));
  }
  queue_.push_back(piece);
  backlog_bytes_ += bytes.bytes;
  if (work_ == nullptr) start_batch();
  return env.Undefined();
}

Napi::Value Digests::drained(const Napi::CallbackInfo& info) {
  const uint64_t backlog_bytes = to_uint(info[0]);
  Waiter waiter{backlog_bytes, nullptr};
  napi_value promise;
  NAPI_THROW_IF_FAILED(info.Env(), napi_create_promise(info.Env(), &waiter.deferred, &promise), Napi::Value());
  waiters_.push_back(waiter);
  settle();
  return {info.Env(), promise};
}

Napi::Value Digests::finish(const Napi::CallbackInfo& info) {
  if (finishing_) throw to_error(info.Env(), Status(Code::kClosed, "the digests are finished"));
  napi_value promise;
  NAPI_THROW_IF_FAILED(info.Env(), napi_create_promise(info.Env(), &finish_, &promise), Napi::Value());
  finishing_ = true;
  settle();
  return {info.Env(), promise};
}

bool Digests::digest(ConstSpan bytes) {
  while (bytes.bytes > 0) {
    const size_t block = std::min<uint64_t>(bytes.bytes, kBlockBytes);
    for (const auto& digest : digests_) {
      if (!digest->update(bytes.data, block)) return false;
    }
    bytes.data += block;
    bytes.bytes -= block;
  }
  return true;
}

void Digests::start_batch() {
  const Napi::HandleScope scope(Env());
  napi_value name;
  const bool started = napi_create_string_utf8(Env(), "millrace digests", NAPI_AUTO_LENGTH, &name) == napi_ok &&
                       napi_create_async_work(Env(), nullptr, name, work, worked, this, &work_) == napi_ok;
  if (started) {
    uint64_t bytes = 0;
    do {
      bytes += queue_.front().bytes.bytes;
      batch_.push_back(queue_.front());
      queue_.pop_front();
    } while (!queue_.empty() && bytes + queue_.front().bytes.bytes <= kBatchBytes);
    if (napi_queue_async_work(Env(), work_) == napi_ok) {
      uint32_t count = 0;
      napi_reference_ref(Env(), *this, &count);
      return;
    }
    napi_delete_async_work(Env(), std::exchange(work_, nullptr));
  }
  // Nothing more can be done with this stream; `finish` says so.
  failed_ = Status(Code::kSystem, "the engine refuses work on its pool");
  for (Piece& piece : batch_) release(piece);
  for (Piece& piece : queue_) release(piece);
  batch_.clear();
  queue_.clear();
}

// On a thread of the pool.
void Digests::work(napi_env, void* data) {
  auto* self = static_cast<Digests*>(data);
  for (const Piece& piece : self->batch_) {
    self->batch_digested_ = self->batch_digested_ && self->digest(piece.bytes);
  }
}

// The environment may be about to end: what fails for that reason is of no interest, and nothing may be thrown.
void Digests::worked(napi_env env, napi_status, void* data) {
  auto* self = static_cast<Digests*>(data);
  napi_delete_async_work(env, std::exchange(self->work_, nullptr));
  for (Piece& piece : self->batch_) self->release(piece);
  self->batch_.clear();
  if (!self->batch_digested_) self->failed_ = not_digested();
  if (!self->queue_.empty()) self->start_batch();
  self->settle();
  uint32_t count = 0;
  napi_reference_unref(env, *self, &count);
}

void Digests::release(Piece& piece) {
  napi_delete_reference(Env(), std::exchange(piece.array, nullptr));
  backlog_bytes_ -= piece.bytes.bytes;
}

// Settles what waits for the backlog as it is now.
void Digests::settle() {
  const Napi::HandleScope scope(Env());
  napi_value undefined = nullptr;
  napi_get_undefined(Env(), &undefined);
  std::erase_if(waiters_, [&](const Waiter& waiter) {
    if (waiter.backlog_bytes < backlog_bytes_) return false;
    napi_resolve_deferred(Env(), waiter.deferred, undefined);
    return true;
  });
  if (finish_ != nullptr && backlog_bytes_ == 0) settle_finish(std::exchange(finish_, nullptr));
}

void Digests::settle_finish(napi_deferred deferred) {
  napi_env env = Env();
  napi_value list = nullptr;
  if (failed_.ok() && napi_create_array(env, &list) != napi_ok) return;
  for (size_t i = 0; failed_.ok() && i < digests_.size(); ++i) {
    const auto found = digests_[i]->finish();
    if (!found) {
      failed_ = not_digested();
      break;
    }
    napi_value buffer;
    if (napi_create_buffer_copy(env, found->size(), found->data(), nullptr, &buffer) != napi_ok ||
        napi_set_element(env, list, static_cast<uint32_t>(i), buffer) != napi_ok) {
      return;
    }
  }
  digests_.clear();
  if (failed_.ok()) {
    napi_resolve_deferred(env, deferred, list);
    return;
  }
  try {
    napi_reject_deferred(env, deferred, to_error(env, failed_).Value());
  } catch (const Napi::Error&) {  // the environment ends
  }
}

// The CRC of a whole from those of its parts, big-endian side by side, and their sizes. Nothing where they do not match.
template <auto kCombine, class Word>
std::optional<DigestBytes> combine(ConstSpan crcs, const Napi::Float64Array& sizes) {
  if (crcs.bytes != sizes.ElementLength() * sizeof(Word)) return std::nullopt;
  Word whole = 0;
  for (size_t i = 0; i < sizes.ElementLength(); ++i) {
    Word part = 0;
    for (size_t byte = 0; byte < sizeof(Word); ++byte) part = part << 8 | crcs.data[i * sizeof(Word) + byte];
    const double bytes = sizes[i];
    if (!(bytes >= 0 && bytes <= static_cast<double>(limits::kObjectBytesMax))) return std::nullopt;
    whole = kCombine(whole, part, static_cast<uint64_t>(bytes));
  }
  return big_endian(whole);
}

Napi::Value combine_crcs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string name = to_text(info[0]);
  const ConstSpan crcs = to_bytes(info[1]);
  if (!info[2].IsTypedArray() || info[2].As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    throw bad_argument(env, "sizes are a Float64Array");
  }
  const auto sizes = info[2].As<Napi::Float64Array>();
  std::optional<DigestBytes> whole;
  if (name == "crc32") whole = combine<zlib_crc32_combine, uint32_t>(crcs, sizes);
  else if (name == "crc32c") whole = combine<crc32c_combine, uint32_t>(crcs, sizes);
  else if (name == "crc64nvme") whole = combine<crc64nvme_combine, uint64_t>(crcs, sizes);
  else throw bad_argument(env, "there is no such CRC");
  if (!whole) throw bad_argument(env, "there must be a CRC and a size of each part");
  return Napi::Buffer<uint8_t>::Copy(env, whole->data(), whole->size());
}

}  // namespace

bool openssl_digests_work() {
  return make_digest("md5").ok() && make_digest("sha1").ok() && make_digest("sha256").ok();
}

void register_digests(Napi::Env env, Napi::Object exports) {
  exports.Set("Digests", Digests::define(env));
  exports.Set("combineCrcs", Napi::Function::New(env, combine_crcs, "combineCrcs"));
}

}  // namespace millrace::binding
