// A range of an object that a JavaScript door is reading. See NativeReader in addon.ts.
#pragma once
#include <napi.h>

#include <memory>
#include <string>

#include "store/store.h"

namespace millrace::binding {

class ReaderHandle : public Napi::ObjectWrap<ReaderHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit ReaderHandle(const Napi::CallbackInfo& info);
  ~ReaderHandle() override;
  // The namespace keeps `files` alive.
  void open(std::shared_ptr<Namespace> ns, FileReader& files, ObjectView view, std::string key);

 private:
  struct FileReads;

  Napi::Value object_info(const Napi::CallbackInfo& info);
  Napi::Value attributes(const Napi::CallbackInfo& info);
  Napi::Value in_files(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value read_async(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  void let_go();

  ObjectInfo info_;
  std::string attributes_;
  // Of an object in memory.
  ObjectView view_;
  std::string key_;
  bool whole_ = false;  // all of the object is read, and so checked at its end
  size_t span_ = 0;
  uint64_t offset_ = 0;  // in the span
  uint32_t crc_ = 0;     // of what was read
  // Of one in files.
  std::shared_ptr<FileReads> file_reads_;
};

}  // namespace millrace::binding
