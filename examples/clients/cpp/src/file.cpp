#include "file.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string_view>
#include <system_error>

namespace {

// A little-endian number, as this machine has them too (message.h checks that).
template <typename T>
T Number(std::string_view bytes, std::size_t at) {
  T number;
  std::memcpy(&number, bytes.substr(at, sizeof number).data(), sizeof number);
  return number;
}

// Whether a chunk "fmt " says PCM, one channel, 16 kHz, 16 bits.
bool IsWanted(std::string_view format) {
  return format.size() >= 16 && Number<std::uint16_t>(format, 0) == 1 &&
         Number<std::uint16_t>(format, 2) == 1 && Number<std::uint32_t>(format, 4) == 16000 &&
         Number<std::uint16_t>(format, 14) == 16;
}

std::vector<float> Samples(std::string_view data) {
  std::vector<float> samples(data.size() / sizeof(std::int16_t));
  for (std::size_t i = 0; i < samples.size(); ++i) {
    samples[i] = static_cast<float>(Number<std::int16_t>(data, i * sizeof(std::int16_t))) / 32768;
  }
  return samples;
}

}  // namespace

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::system_error(errno, std::generic_category(), path.string());
  return {std::istreambuf_iterator(file), {}};
}

std::vector<float> ReadWav(const std::filesystem::path& path) {
  const std::string bytes = ReadFile(path);
  std::string_view rest = bytes;
  if (rest.size() < 12 || rest.substr(0, 4) != "RIFF" || rest.substr(8, 4) != "WAVE") {
    throw std::runtime_error(path.string() + ": not a WAV file");
  }
  rest.remove_prefix(12);
  // Chunks follow: a tag, a size, as many bytes, and one more where that is odd.
  bool is_wanted = false;
  while (rest.size() >= 8) {
    const std::string_view tag = rest.substr(0, 4);
    const std::size_t size = Number<std::uint32_t>(rest, 4);
    rest.remove_prefix(8);
    const std::string_view chunk = rest.substr(0, size);
    if (tag == "fmt ") is_wanted = IsWanted(chunk);
    if (tag == "data" && is_wanted) return Samples(chunk);
    rest.remove_prefix(std::min(rest.size(), size + size % 2));
  }
  throw std::runtime_error(path.string() + ": not 16 kHz, mono, 16 bits");
}
