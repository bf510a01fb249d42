// The same library from C++: handles in unique_ptr, and a listener.
#include <evenkeel.h>

#include <cstdio>
#include <memory>
#include <vector>

struct destroy {
    void operator()(ek_context *context) const { ek_context_destroy(context); }
    void operator()(ek_net *net) const { ek_net_destroy(net); }
    void operator()(ek_dataset *dataset) const { ek_dataset_destroy(dataset); }
};
template <typename T> using handle = std::unique_ptr<T, destroy>;

static bool failed(ek_status status)
{
    if (status != EK_OK) std::fprintf(stderr, "consumer_cpp: %s: %s\n", ek_status_name(status), ek_error());
    return status != EK_OK;
}

int main()
{
    ek_context *context = nullptr;
    ek_net *net = nullptr;
    ek_dataset *data = nullptr;
    ek_context_options options = ek_context_options_default();
    if (failed(ek_context_create(&options, &context))) return 1;
    handle<ek_context> hold_context(context);
    if (failed(ek_net_open(context, "mlp-bn", &net))) return 1;
    handle<ek_net> hold_net(net);
    if (failed(ek_dataset_open("synthetic", EK_SPLIT_TEST, &data))) return 1;
    handle<ek_dataset> hold_data(data);
    ek_metrics metrics;
    if (failed(ek_evaluate(net, data, 100, &metrics))) return 1;
    std::vector<float> x(784, 0.5f), y(10);
    if (failed(ek_net_forward(net, EK_MODE_INFERENCE, 1, x.data(), y.data()))) return 1;
    std::printf("Evenkeel %s from C++, %d layers, loss %.2f\n", ek_version(), ek_net_layer_count(net), metrics.loss);
    return 0;
}
