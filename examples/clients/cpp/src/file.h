// Files as the models want them. Both throw if a file cannot be used.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

// All bytes of a file.
std::string ReadFile(const std::filesystem::path& path);

// The samples of a WAV file (16 kHz, mono, 16 bits), from -1 to 1.
std::vector<float> ReadWav(const std::filesystem::path& path);
