// examples/line.cpp with LibTorch, for the benchmark of compile and start times.
#include <torch/torch.h>

#include <cstdio>

int main() {
  const auto x = torch::tensor({0.0, 1.0, 2.0, 3.0}, torch::kFloat64).reshape({4, 1});
  const auto y = torch::tensor({1.0, 3.0, 5.0, 7.0}, torch::kFloat64).reshape({4, 1});
  torch::nn::Linear line(1, 1);
  line->to(torch::kFloat64);
  torch::optim::SGD optimizer(line->parameters(), 0.1);
  for (int step = 0; step <= 200; ++step) {
    optimizer.zero_grad();
    const auto loss = torch::mse_loss(line(x), y);
    loss.backward();
    optimizer.step();
    if (step % 50 == 0) std::printf("step %3d: cost %.6f\n", step, loss.item<double>());
  }
  std::printf("y = %.3f x + %.3f\n", line->weight.item<double>(), line->bias.item<double>());
}
