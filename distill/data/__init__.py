"""Data sets: one file for each kind, each giving the same three splits."""

from distill.data.arrays import Arrays as Arrays
from distill.data.augment import CenterCrop as CenterCrop
from distill.data.augment import Crop as Crop
from distill.data.augment import Flip as Flip
from distill.data.augment import RandomResizedCrop as RandomResizedCrop
from distill.data.augment import Resize as Resize
from distill.data.augment import Transform as Transform
from distill.data.batches import Batches as Batches
from distill.data.cifar import Cifar10 as Cifar10
from distill.data.cifar import Cifar100 as Cifar100
from distill.data.digits import Digits as Digits
from distill.data.examples import Data as Data
from distill.data.examples import Example as Example
from distill.data.examples import Examples as Examples
from distill.data.examples import Images as Images
from distill.data.examples import Part as Part
from distill.data.examples import Splits as Splits
from distill.data.examples import collate as collate
from distill.data.examples import make_splits as make_splits
from distill.data.image_folder import ImageFolder as ImageFolder
from distill.data.imagenet import ImageNet as ImageNet
from distill.data.mix import Mix as Mix
from distill.data.pets import Pets as Pets
