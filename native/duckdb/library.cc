#include "duckdb/library.h"

#include <dlfcn.h>

#include <atomic>
#include <memory>
#include <mutex>

namespace millrace::duckdb {
namespace {

std::mutex load_mutex;
void* loaded_handle = nullptr;
std::atomic<const Library*> loaded_library = nullptr;

}  // namespace

Result<const Library*> Library::load(const std::string& path) {
  const std::lock_guard<std::mutex> lock(load_mutex);
  void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return Status(Code::kUnsupported, std::string("DuckDB cannot be loaded: ") + dlerror());
  if (handle == loaded_handle) return loaded_library.load();
  auto library = std::make_unique<Library>();
  const char* missing = nullptr;
  const auto find = [&]<class Function>(const char* symbol, Function& function) {
    function = reinterpret_cast<Function>(dlsym(handle, symbol));
    if (function == nullptr && missing == nullptr) missing = symbol;
  };
#define MILLRACE_DUCKDB_FIND(name, result, parameters) find("duckdb_" #name, library->name);
  MILLRACE_DUCKDB_FUNCTIONS(MILLRACE_DUCKDB_FIND)
#undef MILLRACE_DUCKDB_FIND
  if (missing != nullptr) return Status(Code::kUnsupported, path + " has no function " + missing);
  if (library->vector_size() != kChunkRows) {
    return Status(Code::kUnsupported, path + " works in chunks of " + std::to_string(library->vector_size()) +
                                          " rows instead of " + std::to_string(kChunkRows));
  }
  if (loaded_handle != nullptr) {
    return Status(Code::kUnsupported, "this process works with another DuckDB than " + path);
  }
  loaded_handle = handle;
  loaded_library = library.get();
  return library.release();
}

const Library& Library::loaded() {
  MILLRACE_ASSERT(loaded_library != nullptr);
  return *loaded_library;
}

std::string Library::take(char* text) const {
  if (text == nullptr) return {};
  std::string copy(text);
  free(text);
  return copy;
}

}  // namespace millrace::duckdb
