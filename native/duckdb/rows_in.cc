#include "duckdb/rows_in.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>

namespace millrace::duckdb {
namespace {

// Rows that a thread takes at a time.
constexpr uint64_t kMorselRows = 60 * kChunkRows;

struct Morsel {
  const Block* block;
  uint64_t first;
  uint64_t end;
};

struct Bound {
  RowsIn* owner;
  const RowsInput* input;
};

// One scan, shared by its threads.
struct Scan {
  RowsIn* owner;
  std::vector<uint64_t> columns;  // that are wanted, in the order of the output
  std::vector<Morsel> morsels;
  std::atomic<size_t> next = 0;
};

template <class T>
void destroy(void* object) {
  delete static_cast<T*>(object);
}

// No exception may pass through DuckDB's C functions.
template <class Body>
void guarded(Body body, void (*set_error)(void*, const char*), void* info) {
  try {
    body();
  } catch (const std::exception& exception) {
    set_error(info, exception.what());
  }
}

// Bits from `first` on, `count` of them; not a bit beyond is read.
uint64_t bits_at(const uint8_t* bits, uint64_t first, uint64_t count) {
  uint64_t low = 0;
  const uint64_t shift = first % 8, bytes = (shift + count + 7) / 8;
  std::memcpy(&low, bits + first / 8, std::min<uint64_t>(bytes, 8));
  uint64_t value = low >> shift;
  if (bytes > 8) value |= uint64_t{bits[first / 8 + 8]} << (64 - shift);
  return count == 64 ? value : value & ((uint64_t{1} << count) - 1);
}

// Copies rows that have been checked into a vector that DuckDB has emptied.
class Filler {
 public:
  explicit Filler(const Library& library) : library_(library) {}

  void fill(Vector vector, const BlockColumn& column, uint64_t first, uint64_t count) const {
    if (count == 0) return;
    if (column.validity != nullptr) fill_validity(vector, column.validity, first, count);
    switch (column.type->shape) {
      case Shape::kFixed:
        std::memcpy(library_.vector_get_data(vector), column.data + first * column.type->width,
                    count * column.type->width);
        break;
      case Shape::kString:
        fill_strings(static_cast<StringValue*>(library_.vector_get_data(vector)), column, first, count);
        break;
      case Shape::kList:
        fill_lists(vector, column, first, count);
        break;
      case Shape::kStruct:
        for (size_t i = 0; i < column.children.size(); ++i) {
          fill(library_.struct_vector_get_child(vector, i), column.children[i], first, count);
        }
        break;
      case Shape::kArray:
        fill(library_.array_vector_get_child(vector), column.children[0], first * column.type->width,
             count * column.type->width);
        break;
    }
  }

 private:
  void fill_validity(Vector vector, const uint8_t* validity, uint64_t first, uint64_t count) const {
    uint64_t* into = nullptr;
    for (uint64_t at = 0; at < count; at += 64) {
      const uint64_t bits = std::min<uint64_t>(64, count - at);
      const uint64_t word = bits_at(validity, first + at, bits);
      if (into == nullptr) {
        if (word == (bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1)) continue;
        library_.vector_ensure_validity_writable(vector);
        into = library_.vector_get_validity(vector);
        std::memset(into, 0xff, at / 8);
      }
      into[at / 64] = word;
    }
  }

  // Long ones stay where they are and are pointed at.
  void fill_strings(StringValue* into, const BlockColumn& column, uint64_t first, uint64_t count) const {
    uint64_t at = column.begin(first);
    for (uint64_t i = 0; i < count; ++i) {
      uint32_t end;
      std::memcpy(&end, column.data + (first + i) * sizeof(end), sizeof(end));
      const uint8_t* bytes = column.bytes + at;
      const uint64_t length = end - at;
      StringValue value{};
      value.length = static_cast<uint32_t>(length);
      if (length > kInlinedBytesMax) {
        std::memcpy(value.prefix, bytes, sizeof(value.prefix));
        value.pointer = bytes;
      } else if (column.extent - at >= 16) {
        // Without a branch for each length: more than the value is read, and what is too much is masked.
        uint64_t low, high;
        std::memcpy(&low, bytes, 8);
        std::memcpy(&high, bytes + 8, 8);
        low &= length >= 8 ? ~uint64_t{0} : (uint64_t{1} << 8 * length) - 1;
        high &= length <= 8 ? 0 : (uint64_t{1} << 8 * (length - 8)) - 1;
        std::memcpy(value.prefix, &low, 4);
        const uint64_t rest = low >> 32 | high << 32;
        std::memcpy(value.inlined, &rest, 8);
      } else if (length > 0) {
        uint8_t inlined[kInlinedBytesMax] = {};
        std::memcpy(inlined, bytes, length);
        std::memcpy(value.prefix, inlined, 4);
        std::memcpy(value.inlined, inlined + 4, 8);
      }
      into[i] = value;
      at = end;
    }
  }

  void fill_lists(Vector vector, const BlockColumn& column, uint64_t first, uint64_t count) const {
    const uint64_t start = column.begin(first), children = column.begin(first + count) - start;
    if (library_.list_vector_reserve(vector, children) != kSuccess) throw std::bad_alloc();
    auto* entries = static_cast<ListEntry*>(library_.vector_get_data(vector));
    uint64_t at = start;
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t end = column.begin(first + i + 1);
      entries[i] = {at - start, end - at};
      at = end;
    }
    library_.list_vector_set_size(vector, children);
    fill(library_.list_vector_get_child(vector), column.children[0], start, children);
  }

  const Library& library_;
};

void bind(BindInfo info) {
  const Library& library = Library::loaded();
  guarded(
      [&] {
        auto* owner = static_cast<RowsIn*>(library.bind_get_extra_info(info));
        Value parameter = library.bind_get_parameter(info, 0);
        const std::string name = library.take(library.get_varchar(parameter));
        library.destroy_value(&parameter);
        const auto found = owner->inputs().find(name);
        if (found == owner->inputs().end()) {
          library.bind_set_error(info, ("the statement was given no rows named '" + name + "'").c_str());
          return;
        }
        const RowsInput& input = found->second;
        for (size_t i = 0; i < input.logical_types.size(); ++i) {
          library.bind_add_result_column(info, ("c" + std::to_string(i)).c_str(), input.logical_types[i]);
        }
        library.bind_set_cardinality(info, input.rows, true);
        library.bind_set_bind_data(info, new Bound{owner, &input}, destroy<Bound>);
      },
      library.bind_set_error, info);
}

void init(InitInfo info) {
  const Library& library = Library::loaded();
  guarded(
      [&] {
        const auto& bound = *static_cast<const Bound*>(library.init_get_bind_data(info));
        auto scan = std::make_unique<Scan>();
        scan->owner = bound.owner;
        const uint64_t columns = library.init_get_column_count(info);
        for (uint64_t i = 0; i < columns; ++i) scan->columns.push_back(library.init_get_column_index(info, i));
        for (const Block& block : bound.input->blocks) {
          for (uint64_t first = 0; first < block.rows; first += kMorselRows) {
            scan->morsels.push_back({&block, first, std::min(first + kMorselRows, block.rows)});
          }
        }
        const uint64_t threads = std::min<uint64_t>(bound.owner->threads(), scan->morsels.size());
        library.init_set_max_threads(info, std::max<uint64_t>(threads, 1));
        library.init_set_init_data(info, scan.release(), destroy<Scan>);
      },
      library.init_set_error, info);
}

void init_thread(InitInfo info) {
  const Library& library = Library::loaded();
  guarded([&] { library.init_set_init_data(info, new Morsel{nullptr, 0, 0}, destroy<Morsel>); },
          library.init_set_error, info);
}

void next_chunk(FunctionInfo info, Chunk output) {
  const Library& library = Library::loaded();
  guarded(
      [&] {
        auto& scan = *static_cast<Scan*>(library.function_get_init_data(info));
        auto& morsel = *static_cast<Morsel*>(library.function_get_local_init_data(info));
        if (morsel.first == morsel.end) {
          const size_t next = scan.next.fetch_add(1, std::memory_order_relaxed);
          if (next >= scan.morsels.size()) return library.data_chunk_set_size(output, 0);
          morsel = scan.morsels[next];
        }
        const uint64_t count = std::min(kChunkRows, morsel.end - morsel.first);
        const Filler filler(library);
        for (size_t i = 0; i < scan.columns.size(); ++i) {
          // Where a statement asks for no column at all, DuckDB asks for one that there is not.
          if (scan.columns[i] >= morsel.block->columns.size()) continue;
          const BlockColumn& column = morsel.block->columns[scan.columns[i]];
          if (Status status = check_rows(column, morsel.first, morsel.first + count); !status.ok()) {
            scan.owner->fault(status);
            library.function_set_error(info, status.message().c_str());
            return;
          }
          filler.fill(library.data_chunk_get_vector(output, i), column, morsel.first, count);
        }
        library.data_chunk_set_size(output, count);
        morsel.first += count;
      },
      library.function_set_error, info);
}

}  // namespace

Status RowsIn::add_to(Connection connection) {
  TableFunction function = library_.create_table_function();
  library_.table_function_set_name(function, "rows_in");
  {
    const OwnedType text(library_, library_.create_logical_type(kTypeVarchar));
    library_.table_function_add_parameter(function, text);
  }
  library_.table_function_set_extra_info(function, this, nullptr);
  library_.table_function_set_bind(function, bind);
  library_.table_function_set_init(function, init);
  library_.table_function_set_local_init(function, init_thread);
  library_.table_function_set_function(function, next_chunk);
  library_.table_function_supports_projection_pushdown(function, true);
  const State state = library_.register_table_function(connection, function);
  library_.destroy_table_function(&function);
  return state == kSuccess ? Status() : Status(Code::kInternal, "DuckDB takes no table function rows_in");
}

Status RowsIn::take_fault() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(fault_, Status());
}

void RowsIn::fault(const Status& status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (fault_.ok()) fault_ = status;
}

}  // namespace millrace::duckdb
