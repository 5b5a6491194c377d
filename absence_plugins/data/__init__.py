"""Real data and a small trained network that work offline.

Handwritten digits come from scikit-learn's bundled set, the network's weights from this package.
"""

from absence_plugins.data.digits import DigitData, digits_cnn, load_digits

__all__ = ["DigitData", "digits_cnn", "load_digits"]
