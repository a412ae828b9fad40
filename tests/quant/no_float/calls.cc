// For the check's own test: neither may one that has another object compute for it.
int elsewhere(int x);
int ask(int x);

int ask(int x) {
  int sum = 0;
  for (int i = 0; i < x; ++i) sum += elsewhere(i) * 3 + elsewhere(i + 1) * 5;
  return elsewhere(sum + 1) + elsewhere(sum + 2);
}
