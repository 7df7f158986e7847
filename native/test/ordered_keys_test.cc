// Ordered keys against std::set.
#include "index/ordered_keys.h"

#include <algorithm>
#include <map>

#include "test/test_support.h"

namespace millrace {
namespace {

using test::Random;

// Keys that references of the tests stand for: the offset says which.
class Keys {
 public:
  SlotRef add(std::string key) {
    keys_.push_back(std::move(key));
    return {static_cast<uint32_t>(keys_.size() >> 20), (keys_.size() - 1) * 16};
  }
  const std::string& of(SlotRef ref) const { return keys_[ref.entry_offset / 16]; }
  OrderedKeys::KeyOf key_of() {
    return [this](SlotRef ref) { return std::string_view(of(ref)); };
  }

 private:
  std::vector<std::string> keys_;
};

// Bytes are compared as unsigned ones, and a zero byte is one like any other.
struct ByteOrder {
  bool operator()(const std::string& a, const std::string& b) const {
    return std::lexicographical_compare(
        a.begin(), a.end(), b.begin(), b.end(),
        [](char x, char y) { return static_cast<unsigned char>(x) < static_cast<unsigned char>(y); });
  }
};
using Model = std::map<std::string, SlotRef, ByteOrder>;

std::string random_key(Random& random) {
  static const char* const kPrefixes[] = {"", "a", "a/", "a/b/", "b", "\xff", "\xff\xff", "\x7f", "\x80", "z"};
  std::string key = kPrefixes[random.below(10)];
  const uint64_t length = random.below(5);
  for (uint64_t i = 0; i < length; ++i) key += static_cast<char>("\x00\x01/ab\x7f\x80\xff"[random.below(8)]);
  return key.empty() ? "k" : key;
}

void expect_same(const OrderedKeys& ordered, const Model& model, const Keys& keys, const std::string& from, size_t limit) {
  auto at = model.lower_bound(from);
  size_t count = 0;
  ordered.scan(from, [&](SlotRef ref) {
    EXPECT_NE(at, model.end());
    if (at == model.end()) return false;
    EXPECT_EQ(keys.of(ref), at->first);
    EXPECT_EQ(ref.entry_offset, at->second.entry_offset) << "refers to an older entry of the key";
    ++at;
    return ++count < limit;
  });
  EXPECT_TRUE(count == limit || at == model.end()) << "ended early";
}

TEST(OrderedKeys, MatchAnOrderedMapUnderRandomOperations) {
  Random random(test::new_seed("OrderedKeys.MatchAnOrderedMapUnderRandomOperations"));
  Keys keys;
  OrderedKeys ordered(keys.key_of());
  Model model;
  const int operations = test::kSanitized ? 30000 : 200000;
  for (int i = 0; i < operations; ++i) {
    const std::string key = random_key(random);
    const SlotRef ref = keys.add(key);
    // Phases that mostly grow and such that mostly shrink.
    if (random.below(10) < (i / 5000 % 2 == 0 ? 7 : 3)) {
      ordered.put(ref);
      model[key] = ref;
    } else {
      ordered.remove(ref);
      model.erase(key);
    }
    ASSERT_EQ(ordered.size(), model.size());
    if (i % 500 == 0) expect_same(ordered, model, keys, random_key(random), random.between(1, 200));
  }
  expect_same(ordered, model, keys, "", model.size() + 1);
  for (int i = 0; i < 300; ++i) expect_same(ordered, model, keys, random_key(random), 20);
}

class Sequence : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(OrderedKeys, Sequence, ::testing::Values(0, 1, 2));

TEST_P(Sequence, ManyKeysInOrderReversedOrShuffled) {
  const int kind = GetParam();
  const size_t count = test::kSanitized ? 20000 : 100000;
  std::vector<std::string> names(count);
  for (size_t i = 0; i < count; ++i) {
    char name[32];
    std::snprintf(name, sizeof name, "key-%08zu", i);
    names[i] = name;
  }
  Random random(test::new_seed("OrderedKeys.ManyKeysInOrderReversedOrShuffled"));
  if (kind == 1) std::reverse(names.begin(), names.end());
  if (kind == 2) {
    for (size_t i = count - 1; i > 0; --i) std::swap(names[i], names[random.below(i + 1)]);
  }
  Keys keys;
  OrderedKeys ordered(keys.key_of());
  Model model;
  for (const auto& name : names) {
    const SlotRef ref = keys.add(name);
    ordered.put(ref);
    model[name] = ref;
  }
  ASSERT_EQ(ordered.size(), count);
  expect_same(ordered, model, keys, "", count + 1);
  expect_same(ordered, model, keys, "key-0000050", 100);
  expect_same(ordered, model, keys, "l", 100);
  for (size_t i = 0; i < count; ++i) {
    if (i % 10 == 3) continue;
    ordered.remove(keys.add(names[i]));
    model.erase(names[i]);
  }
  ASSERT_EQ(ordered.size(), model.size());
  expect_same(ordered, model, keys, "", count + 1);
  for (const auto& name : names) ordered.remove(keys.add(name));
  EXPECT_EQ(ordered.size(), 0u);
  ordered.scan("", [](SlotRef) {
    ADD_FAILURE();
    return false;
  });
}

TEST(OrderedKeys, TakeOverASortedList) {
  for (const size_t count : {size_t{0}, size_t{1}, size_t{511}, size_t{512}, size_t{513}, size_t{10000}}) {
    Keys keys;
    Model model;
    for (size_t i = 0; i < count; ++i) {
      char name[32];
      std::snprintf(name, sizeof name, "%06zu", i * 2);
      model[name] = keys.add(name);
    }
    std::vector<SlotRef> refs;
    for (const auto& [key, ref] : model) refs.push_back(ref);
    OrderedKeys ordered(keys.key_of());
    ordered.put(keys.add("what was there before"));
    ordered.load_sorted(refs);
    ASSERT_EQ(ordered.size(), count);
    expect_same(ordered, model, keys, "", count + 1);
    for (size_t i = 0; i < count; ++i) {
      char name[32];
      std::snprintf(name, sizeof name, "%06zu", i * 2 + 1);
      const SlotRef ref = keys.add(name);
      ordered.put(ref);
      model[name] = ref;
    }
    expect_same(ordered, model, keys, "", 2 * count + 1);
  }
}

TEST(OrderedKeys, AKeyRefersToItsNewestEntry) {
  Keys keys;
  OrderedKeys ordered(keys.key_of());
  const SlotRef first = keys.add("key");
  const SlotRef second = keys.add("key");
  ordered.put(first);
  ordered.put(second);
  EXPECT_EQ(ordered.size(), 1u);
  ordered.scan("", [&](SlotRef ref) {
    EXPECT_EQ(ref.entry_offset, second.entry_offset);
    return true;
  });
  ordered.remove(keys.add("other"));
  EXPECT_EQ(ordered.size(), 1u);
  ordered.remove(second);
  EXPECT_EQ(ordered.size(), 0u);
}

}  // namespace
}  // namespace millrace
