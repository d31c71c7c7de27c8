// Fills the white part of a mask: inpaint MODEL PHOTO.ppm MASK.pgm OUTPUT.ppm.
//
// Pictures are binary netpbm files (P6 for RGB, P5 for gray), which need no library. An application
// has its own pictures in memory: it needs run() and full_size.hpp.
#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "full_size.hpp"

struct Picture {
  int64_t height = 0;
  int64_t width = 0;
  int64_t channels = 0;         // 3 = RGB, 1 = gray
  std::vector<uint8_t> pixels;  // height x width x channels
};

// Runs the model on pixels in memory: `image` is rows x columns x 3, `mask` is above 127 in the hole.
full_size::Answer run(Ort::Session& session, std::vector<uint8_t>& image,
                      std::vector<uint8_t>& mask, int64_t rows, int64_t columns) {
  const std::array<int64_t, 4> image_shape{1, rows, columns, 3};
  const std::array<int64_t, 3> mask_shape{1, rows, columns};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::array<Ort::Value, 2> inputs{
      Ort::Value::CreateTensor<uint8_t>(memory, image.data(), image.size(), image_shape.data(),
                                        image_shape.size()),
      Ort::Value::CreateTensor<uint8_t>(memory, mask.data(), mask.size(), mask_shape.data(),
                                        mask_shape.size())};
  const std::array<const char*, 2> input_names{"image", "mask"};
  const std::array<const char*, 2> output_names{"inpainted", "source"};
  const size_t count = session.GetOutputCount() == 1 ? 1 : 2;  // version 1 has no source
  const auto outputs = session.Run(Ort::RunOptions{nullptr}, input_names.data(), inputs.data(),
                                   inputs.size(), output_names.data(), count);
  const auto* inpainted = outputs[0].GetTensorData<uint8_t>();
  full_size::Answer answer{{inpainted, inpainted + image.size()}, {}};
  if (count == 2) {
    const auto* source = outputs[1].GetTensorData<int32_t>();
    answer.source.assign(source, source + mask.size() * 2);
  }
  return answer;
}

// One number of a netpbm header; comments run from '#' to the end of the line.
int64_t header_number(std::istream& file) {
  while ((file >> std::ws) && file.peek() == '#') {
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  int64_t number = 0;
  file >> number;
  return number;
}

Picture read(const std::string& path, int64_t channels) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  const std::string expected = channels == 3 ? "P6" : "P5";
  std::string magic(2, ' ');
  file.read(magic.data(), 2);
  const int64_t width = header_number(file);
  const int64_t height = header_number(file);
  const int64_t maximum = header_number(file);
  file.get();  // the one white space before the pixels
  constexpr int64_t limit = 1 << 15;
  if (!file || magic != expected || width < 1 || width > limit || height < 1 || height > limit ||
      maximum != 255) {
    throw std::runtime_error(path + ": not a binary " + (channels == 3 ? "PPM" : "PGM") + " (" +
                             expected + ") with 8 bits a channel");
  }
  Picture picture{height, width, channels, std::vector<uint8_t>(height * width * channels)};
  file.read(reinterpret_cast<char*>(picture.pixels.data()), picture.pixels.size());
  if (!file) throw std::runtime_error(path + ": ends before its last pixel");
  return picture;
}

void write(const std::string& path, const Picture& picture) {
  const std::string part = path + ".part";  // whole or not at all
  std::ofstream file(part, std::ios::binary);
  file << "P6\n" << picture.width << " " << picture.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(picture.pixels.data()), picture.pixels.size());
  file.close();
  if (!file || std::rename(part.c_str(), path.c_str()) != 0) {
    std::remove(part.c_str());
    throw std::runtime_error(path + ": cannot be written");
  }
}

// ONNX Runtime 1.32 and newer read the variable when the first Ort::Env is made.
void disable_telemetry() {
#ifdef _WIN32
  _putenv_s("ORT_DISABLE_TELEMETRY", "1");
#else
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
#endif
}

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: inpaint MODEL PHOTO.ppm MASK.pgm OUTPUT.ppm\n";
    return 2;
  }
  try {
    Picture image = read(argv[2], 3);
    const Picture mask = read(argv[3], 1);
    if (mask.height != image.height || mask.width != image.width) {
      throw std::runtime_error("the mask must be " + std::to_string(image.width) + " x " +
                               std::to_string(image.height) + " like the photo, got " +
                               std::to_string(mask.width) + " x " + std::to_string(mask.height));
    }
    disable_telemetry();
    Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "inpaint");
    const std::filesystem::path model(argv[1]);  // its c_str() is what each system's Session takes
    Ort::Session session(env, model.c_str(), Ort::SessionOptions{});
    const auto model_run = [&](auto& window, auto& hole, int64_t rows, int64_t columns) {
      return run(session, window, hole, rows, columns);
    };
    full_size::fill(model_run, image.pixels, mask.pixels, image.height, image.width);
    write(argv[4], image);
  } catch (const std::exception& error) {
    std::cerr << "inpaint: error: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
