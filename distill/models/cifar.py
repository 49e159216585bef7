"""The small networks of the distillation literature, for images such as CIFAR's: `distill.models.cifar:NAME`.

Every factory takes `num_classes` and `in_channels`; the ResNets also `width`, the channels of their stem, and
`stem_stride`, 2 for images of 64 pixels.
"""

from distill.models.cifar_mobilenet import mobilenetv2 as mobilenetv2
from distill.models.cifar_resnet import resnet8 as resnet8
from distill.models.cifar_resnet import resnet8x4 as resnet8x4
from distill.models.cifar_resnet import resnet14 as resnet14
from distill.models.cifar_resnet import resnet20 as resnet20
from distill.models.cifar_resnet import resnet32 as resnet32
from distill.models.cifar_resnet import resnet32x4 as resnet32x4
from distill.models.cifar_resnet import resnet44 as resnet44
from distill.models.cifar_resnet import resnet56 as resnet56
from distill.models.cifar_resnet import resnet110 as resnet110
from distill.models.cifar_shufflenet import shufflenetv1 as shufflenetv1
from distill.models.cifar_shufflenet import shufflenetv2 as shufflenetv2
from distill.models.cifar_vgg import vgg8 as vgg8
from distill.models.cifar_vgg import vgg11 as vgg11
from distill.models.cifar_vgg import vgg13 as vgg13
from distill.models.cifar_vgg import vgg16 as vgg16
from distill.models.cifar_vgg import vgg19 as vgg19
from distill.models.cifar_wrn import wrn as wrn
from distill.models.cifar_wrn import wrn_16_1 as wrn_16_1
from distill.models.cifar_wrn import wrn_16_2 as wrn_16_2
from distill.models.cifar_wrn import wrn_40_1 as wrn_40_1
from distill.models.cifar_wrn import wrn_40_2 as wrn_40_2
