// Fills a photograph of any size at its full resolution.
//
// ../README.md has the rule in words. All of it is whole numbers, so every language computes the
// same pixels.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace full_size {

constexpr int64_t kWindow = 512;  // pixels that the model sees each way, at most
constexpr int64_t kLeast = 16;    // pixels that a model takes each way, at least

// The model's answer for one window: inpainted is rows x columns x 3; source is rows x columns x 2,
// and empty for a file of version 1, which only paints.
struct Answer {
  std::vector<uint8_t> inpainted;
  std::vector<int32_t> source;
};

// The window along one axis: twice the hole, within the photograph.
struct Extent {
  int64_t start, side;
  Extent(int64_t first, int64_t end, int64_t size)
      : start(0), side(std::min(size, std::max(kWindow, 2 * (end - first)))) {
    start = std::min(std::max<int64_t>(0, first + end - side) / 2, size - side);
  }
};

// Fills `pixels`, height x width x 3, in place where `mask`, height x width, is above 127.
// `run(image, mask, rows, columns)` runs the model on one window and returns an Answer.
template <typename Run>
void fill(Run run, std::vector<uint8_t>& pixels, const std::vector<uint8_t>& mask, int64_t height,
          int64_t width) {
  const auto is_hole = [&](int64_t y, int64_t x) { return mask[y * width + x] > 127; };
  int64_t top = height, left = width, bottom = 0, right = 0;
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      if (!is_hole(y, x)) continue;
      top = std::min(top, y);
      left = std::min(left, x);
      bottom = y + 1;
      right = std::max(right, x + 1);
    }
  }
  if (bottom == 0) return;
  const Extent down(top, bottom, height), across(left, right, width);
  const int64_t scale = (std::max(down.side, across.side) + kWindow - 1) / kWindow;
  const int64_t rows = std::max(kLeast, (down.side + scale - 1) / scale);
  const int64_t columns = std::max(kLeast, (across.side + scale - 1) / scale);

  // Means of the known pixels of each cell; 255 for the cells with a missing or without any pixel.
  std::vector<int64_t> sums(rows * columns * 3), counts(rows * columns);
  std::vector<uint8_t> small(sums.size()), small_mask(counts.size());
  for (int64_t y = 0; y < down.side; ++y) {
    for (int64_t x = 0; x < across.side; ++x) {
      const int64_t cell = y / scale * columns + x / scale;
      if (is_hole(down.start + y, across.start + x)) {
        small_mask[cell] = 255;
        continue;
      }
      ++counts[cell];
      for (int c = 0; c < 3; ++c) {
        sums[cell * 3 + c] += pixels[((down.start + y) * width + across.start + x) * 3 + c];
      }
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    const int64_t count = std::max<int64_t>(1, counts[i / 3]);
    small[i] = static_cast<uint8_t>((2 * sums[i] + count) / (2 * count));
  }
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) small_mask[i] = 255;
  }
  const Answer answer = run(small, small_mask, rows, columns);

  // The small result, enlarged bilinearly, at a pixel of the window, times `unit`.
  const int64_t unit = 4 * scale * scale;
  const auto split = [&](int64_t position) {  // the cell before it, and how far behind that
    const int64_t doubled = 2 * position + 1 + scale;  // moved by one cell, so that none is negative
    return std::array<int64_t, 2>{doubled / (2 * scale) - 1, doubled % (2 * scale)};
  };
  const auto enlarged = [&](int64_t y, int64_t x, int c) {
    const auto [i, below] = split(y);
    const auto [j, behind] = split(x);
    const auto corner = [&](int64_t row, int64_t column) -> int64_t {
      row = std::clamp<int64_t>(row, 0, rows - 1);
      column = std::clamp<int64_t>(column, 0, columns - 1);
      return answer.inpainted[(row * columns + column) * 3 + c];
    };
    const int64_t upper = (2 * scale - behind) * corner(i, j) + behind * corner(i, j + 1);
    const int64_t lower = (2 * scale - behind) * corner(i + 1, j) + behind * corner(i + 1, j + 1);
    return (2 * scale - below) * upper + below * lower;
  };

  for (int64_t y = 0; y < down.side; ++y) {
    for (int64_t x = 0; x < across.side; ++x) {
      if (!is_hole(down.start + y, across.start + x)) continue;
      const int64_t i = y / scale, j = x / scale, cell = (i * columns + j) * 2;
      const bool is_copied = !answer.source.empty() && answer.source[cell] >= 0;
      int64_t from_y = 0, from_x = 0;
      if (is_copied) {
        from_y = std::min(y + (answer.source[cell] - i) * scale, down.side - 1);
        from_x = std::min(x + (answer.source[cell + 1] - j) * scale, across.side - 1);
      }
      for (int c = 0; c < 3; ++c) {
        int64_t value = enlarged(y, x, c) + unit / 2;
        if (is_copied) {
          const auto from = (down.start + from_y) * width + across.start + from_x;
          value += pixels[from * 3 + c] * unit - enlarged(from_y, from_x, c);
        }
        const auto at = (down.start + y) * width + across.start + x;
        pixels[at * 3 + c] = static_cast<uint8_t>(std::clamp<int64_t>(value, 0, 255 * unit) / unit);
      }
    }
  }
}

}  // namespace full_size
