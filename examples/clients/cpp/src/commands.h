// The five commands. Each prints its result and throws if something fails that should not.
#pragma once

#include <filesystem>

#include "message.h"

// In magika.cpp: single calls.
void Classify(Stub& stub, const std::filesystem::path& models, const std::filesystem::path& file);
void Error(Stub& stub);

// In silero.cpp: streams.
void Speech(Stub& stub, const std::filesystem::path& file);
void Deadline(Stub& stub);
void Cancel(Stub& stub);
