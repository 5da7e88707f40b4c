from .lesson import Lesson as Lesson
