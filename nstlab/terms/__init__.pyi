from .affine import Affine as Affine
from .affine import guided as guided
from .lines import Lines as Lines
from .lines import on_white as on_white
from .regions import RegionStyle as RegionStyle
from .regions import region_styles as region_styles
from .temporal import Temporal as Temporal
