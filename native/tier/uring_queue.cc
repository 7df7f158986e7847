// The io_uring backend of the file queue; compiled where liburing is there.
#ifdef MILLRACE_LIBURING
#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "tier/file_queue.h"
#include "tier/file_reader.h"

namespace millrace {

namespace {

class UringQueue final : public FileQueue {
 public:
  UringQueue() = default;
  ~UringQueue() override {
    // The read of the event must have come back: the kernel writes into this object.
    if (wake_armed_) {
      wake();
      std::vector<FileOperation*> none;
      stopping_ = true;
      collect(&none, true);
    }
    if (ready_) io_uring_queue_exit(&ring_);
    if (event_fd_ >= 0) close(event_fd_);
  }

  Status open(uint32_t depth, bool wakeable) {
    // One entry more than operations: for the event.
    // Completions wait for the next system call of this thread, rather than interrupt it as it copies (5.19).
    int error = io_uring_queue_init(depth + 1, &ring_, IORING_SETUP_COOP_TASKRUN);
    if (error == -EINVAL) error = io_uring_queue_init(depth + 1, &ring_, 0);
    if (error != 0) return Status(Code::kUnsupported, Status::from_errno("io_uring_setup", -error).message());
    ready_ = true;
    const std::unique_ptr<io_uring_probe, void (*)(io_uring_probe*)> probe(io_uring_get_probe_ring(&ring_),
                                                                           io_uring_free_probe);
    if (!probe || !io_uring_opcode_supported(probe.get(), IORING_OP_READ) ||
        !io_uring_opcode_supported(probe.get(), IORING_OP_WRITE)) {
      return Status(Code::kUnsupported, "this kernel's io_uring has no plain reads and writes");
    }
    if (!wakeable) return {};
    event_fd_ = eventfd(0, EFD_CLOEXEC);
    if (event_fd_ < 0) return Status::from_errno("eventfd", errno);
    arm_wake();
    return {};
  }

  void submit(FileOperation* operation) override {
    io_uring_sqe* const entry = next_entry();
    uint8_t* const data = operation->data + operation->done;
    const auto bytes = static_cast<unsigned>(operation->bytes - operation->done);
    const uint64_t offset = operation->offset + operation->done;
    if (operation->write) io_uring_prep_write(entry, operation->fd, data, bytes, offset);
    else io_uring_prep_read(entry, operation->fd, data, bytes, offset);
    io_uring_sqe_set_data(entry, operation);
  }

  void start() override { enter(0); }

  void collect(std::vector<FileOperation*>* ended, bool wait) override {
    const size_t before = ended->size();
    for (bool woken = false;;) {
      // Results that are there already are taken without a system call.
      if (io_uring_sq_ready(&ring_) > 0 || (wait && io_uring_cq_ready(&ring_) == 0)) enter(wait ? 1 : 0);
      io_uring_cqe* result = nullptr;
      while (io_uring_peek_cqe(&ring_, &result) == 0) {
        void* const data = io_uring_cqe_get_data(result);
        const int64_t moved = result->res;
        io_uring_cqe_seen(&ring_, result);
        if (data == this) {
          wake_armed_ = false;
          woken = true;
          if (!stopping_) arm_wake();
          continue;
        }
        auto* const operation = static_cast<FileOperation*>(data);
        if (settle(operation, moved)) ended->push_back(operation);
        else submit(operation);
      }
      if (io_uring_sq_ready(&ring_) > 0) enter(0);
      if (!wait || woken || ended->size() > before) return;
    }
  }

  void wake() override {
    const uint64_t one = 1;
    while (write(event_fd_, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
  }

 private:
  io_uring_sqe* next_entry() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    while (entry == nullptr) {
      enter(0);
      entry = io_uring_get_sqe(&ring_);
    }
    return entry;
  }

  void arm_wake() {
    io_uring_sqe* const entry = next_entry();
    io_uring_prep_read(entry, event_fd_, &event_value_, sizeof(event_value_), 0);
    io_uring_sqe_set_data(entry, this);
    wake_armed_ = true;
  }

  // Hands over what was submitted and waits for `results`. The kernel may be short of memory for a moment; there is
  // nobody to tell, and what is under way must come back in any case.
  void enter(unsigned results) {
    for (;;) {
      const int taken = io_uring_submit_and_wait(&ring_, results);
      if (taken >= 0 && io_uring_sq_ready(&ring_) == 0) return;
      if (taken >= 0 || taken == -EINTR) continue;
      MILLRACE_ASSERT(taken == -EAGAIN || taken == -EBUSY || taken == -ENOMEM);
      if (io_uring_cq_ready(&ring_) > 0) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  io_uring ring_{};
  bool ready_ = false;
  int event_fd_ = -1;
  uint64_t event_value_ = 0;
  bool wake_armed_ = false;
  bool stopping_ = false;
};

}  // namespace

Result<std::unique_ptr<FileQueue>> make_uring_queue(uint32_t depth, bool wakeable) {
  auto queue = std::make_unique<UringQueue>();
  if (Status status = queue->open(depth, wakeable); !status.ok()) return status;
  return std::unique_ptr<FileQueue>(std::move(queue));
}

}  // namespace millrace
#endif
