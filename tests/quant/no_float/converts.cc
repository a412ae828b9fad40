// For the check's own test: an object that computes in floating point must not pass.
int halve(int x);

int halve(int x) {
  return static_cast<int>(static_cast<float>(x) * 0.5F) + x * 3 + (x >> 2) * 7 + (x ^ 5) * 11 + (x & 9) * 13;
}
