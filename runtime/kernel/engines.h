// The engines that a build may hold; dispatch.cpp lists those that it does.
#pragma once

#include "problem.h"

namespace onekv {

extern const Engine plain_engine;

}  // namespace onekv
