"""Words that options take, known before torch is imported; a test compares them with the modules that use them."""

from __future__ import annotations

PROTOCOLS = ("controlled", "paper")
REDUCES = ("mean", "max", "min", "sum", "cls")
SCAN_MODES = ("crop", "mask")
GROUPINGS = ("exact", "auto", "none")  # beside a file
NAME_MODES = ("positive", "negative")
NAME_SCORES = ("auc", "auprc", "f1", "iou", "correlation")
PREFERENCES = ("short", "score")  # "auc" is "score" where that is AUC
SEARCHES = ("auto", "certified", "beam")
PROVEN_LENGTH = 4
LABEL_FORMATS = ("auto", "table", "celeba", "cub", "coco", "lvis", "openimages", "broden", "invert")
MEANINGS = ("auto", "absent", "unknown")  # of -1, --labels-minus
CHOSEN = "auto"  # of --labels-threshold, beside a number
WORDNET = "wordnet"  # of --hypernyms, beside a file
BACKGROUNDS = ("none", "virtual", "detectors")
RECIPES = ("robust", "paper")
DEVICES = ("auto", "cpu", "cuda")
SKIPPED = ("maps", "pictures", "name", "faithfulness")
PUBLISHED = ("vgg19", "resnet50", "vit_b_16")  # networks of experiment imagenet
BENCHES = {  # and what each measures; those with costs first, in the order of "all"
    "captum": "time and memory on the same work",
    "zennit": "which composite shows an absence that is known, and the time",
    "lucent": "time for the same picture",
    "relevance": "time and memory next to forward and backward of input and reference, and to integrated gradients",
    "patches": "time beyond the forwards, time and memory next to a plain script",
    "insertion": "time and memory next to a script that runs every pasted image whole",
    "perturbations": "time and memory of occlusion and ablation maps next to Captum's loop",
    "invert": "time next to a straightforward search, and to sorting",
    "debias": "time of a training step next to a plain one",
    "reading": "a folder of photographs next to torch's DataLoader",
    "report": "time of a report next to its forwards and backwards",
    "explain": "time of a photograph's maps, tests and page next to the passes that they need",
    "start": "time until the command line answers",
    "ranks": "time of activations by two ranks of torchrun next to one process",
    "gpu": "what number types cost on a GPU, and whether it computes what the CPU does",
    "directions": "which method recovers known ones",
    "planted": "which method finds absences that are known",
    "models": "on which models a method runs, and whether its sum is right",
    "references": "which references give the truest evidence on photographs",
    "kinds": "whether absences are found in tables, texts, signals, volumes and segmentations",
    "all": "every bench of costs, one after the other",
}
RULES = ("lower_gamma", "lower_zplus", "epsilon", "gamma", "zplus", "alpha_beta")
CAPTUM = (
    "DeepLift", "DeepLiftShap", "FeatureAblation", "FeaturePermutation", "GradientShap", "GuidedBackprop",
    "InputXGradient", "IntegratedGradients", "KernelShap", "LRP", "Lime", "Occlusion", "Saliency",
    "ShapleyValueSampling", "ShapleyValues",
)  # fmt: skip
ZENNIT = (
    "epsilon_alpha2_beta1", "epsilon_alpha2_beta1_flat", "epsilon_gamma", "epsilon_gamma_box", "epsilon_plus",
    "epsilon_plus_flat", "excitation_backprop", "guided_backprop",
)  # fmt: skip
REFUSED = ("DeconvNet", "BetaSmooth")  # composites that exist and cannot show absences: Zennit's side says why
METHODS = ("auto", "relevance", "GradCam", *CAPTUM, *(f"zennit:{name}" for name in ZENNIT))
