// The kernels of convolutions. Not installed.
//
// Attributes stride, padding (those before each spatial axis, then those behind), dilation and groups; one to three
// spatial axes. Every element is computed by one rule, whatever computes it, so its bits depend neither on how the work
// is cut nor on the number of threads, with AVX2 and with AVX-512:
//
//   y    terms in order of (c, taps), in blocks of whole channels of at most 256 terms, or of one channel; each block a
//        chain of fused multiply-adds, and the blocks' sums added in order.
//   dx   where the stride is 1 and that is less work: as y, of dy and the turned weights, terms in order of (k, taps).
//        Else for each tap a sum over k, in blocks of 256, chains as well; added up over the planes' and rows' taps in
//        order, and then over the columns' taps.
//   dw   where there are enough taps and features, a chain over the pixels of a strip of rows of an image, and those
//        added up in order; else 64 bytes of lanes, lane by lane a chain over the pixels of a block of images and strip
//        of rows, those added up, then the lanes by halves. And that for parts of all images, which are added in order.
//        All of that follows from the sizes.
#pragma once

#include <chainrule/framework/graph/op.hpp>

namespace chainrule::convolutions {

// y of (x, w).
Forward convolve();
// dx of (dy, w), with x's spatial extents in attribute "extents".
Forward input_gradient();
// dw of (x, dy), with w's spatial extents in attribute "kernel".
Forward weight_gradient();

}  // namespace chainrule::convolutions
