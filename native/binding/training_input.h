// Files of training data to blocks, as JavaScript sees it: `addon.trainingInput`, see `TrainingInput` in addon.ts.
#pragma once
#include <napi.h>

namespace millrace::binding {

void register_training_input(Napi::Env env, Napi::Object exports);

}  // namespace millrace::binding
