// SPDX-License-Identifier: Apache-2.0
// All processes of the engine, in the order of the data, and the control above them.
#pragma once

#include "winnow/configure.hpp"
#include "winnow/feature_reader.hpp"
#include "winnow/finish.hpp"
#include "winnow/input_transform.hpp"
#include "winnow/lane.hpp"
#include "winnow/output_transform.hpp"
#include "winnow/plane_gatherer.hpp"
#include "winnow/program_reader.hpp"
#include "winnow/result_writer.hpp"
#include "winnow/row_planner.hpp"
#include "winnow/sequencer.hpp"
#include "winnow/shortcut_reader.hpp"
#include "winnow/tile_former.hpp"
#include "winnow/weight_reader.hpp"
